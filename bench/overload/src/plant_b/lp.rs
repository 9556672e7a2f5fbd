//! The bound of Plant B: a linear programme over APIs and services, solved by the simplex method on a dense tableau.

/// Less than this is nothing.
const TINY: f64 = 1e-9;

/// Maximises the sum of `x` with `rows * x <= limits` and `0 <= x <= upper`. All limits must be at least zero, so that the
/// origin is feasible. Bland's rule: it ends.
pub fn maximise(rows: &[Vec<f64>], limits: &[f64], upper: &[f64]) -> Vec<f64> {
    let n = upper.len();
    let m = rows.len() + n;
    let width = n + m + 1;
    let mut table: Vec<Vec<f64>> = Vec::with_capacity(m + 1);
    for i in 0..m {
        let mut line = vec![0.0; width];
        if i < rows.len() {
            line[..n].copy_from_slice(&rows[i]);
            line[width - 1] = limits[i];
        } else {
            line[i - rows.len()] = 1.0;
            line[width - 1] = upper[i - rows.len()];
        }
        line[n + i] = 1.0;
        table.push(line);
    }
    let mut goal = vec![0.0; width];
    goal[..n].fill(-1.0);
    table.push(goal);
    let mut basis: Vec<usize> = (n..n + m).collect();
    while let Some(column) = (0..width - 1).find(|c| table[m][*c] < -TINY) {
        let Some(row) = leaving(&table[..m], &basis, column) else {
            break;
        };
        pivot(&mut table, row, column);
        basis[row] = column;
    }
    let mut x = vec![0.0; n];
    for (row, variable) in basis.iter().enumerate() {
        if *variable < n {
            x[*variable] = table[row][width - 1];
        }
    }
    x
}

/// The row whose variable leaves the basis: the tightest one, and of equals the one with the lowest variable.
fn leaving(rows: &[Vec<f64>], basis: &[usize], column: usize) -> Option<usize> {
    let ratio = |r: &usize| rows[*r].last().map_or(0.0, |b| b / rows[*r][column]);
    (0..rows.len())
        .filter(|r| rows[*r][column] > TINY)
        .min_by(|a, b| {
            ratio(a)
                .total_cmp(&ratio(b))
                .then(basis[*a].cmp(&basis[*b]))
        })
}

fn pivot(table: &mut [Vec<f64>], row: usize, column: usize) {
    let by = table[row][column];
    for value in &mut table[row] {
        *value /= by;
    }
    let line = table[row].clone();
    for (i, other) in table.iter_mut().enumerate() {
        let factor = other[column];
        if i != row && factor != 0.0 {
            for (value, pivot) in other.iter_mut().zip(&line) {
                *value -= factor * pivot;
            }
        }
    }
}

/// The fairest of all `x` with the largest sum: the lowest `x / demand` is as high as possible, then the next one.
pub fn fairest(rows: &[Vec<f64>], limits: &[f64], demand: &[f64]) -> Vec<f64> {
    let best: f64 = maximise(rows, limits, demand).iter().sum();
    let n = demand.len();
    let mut low = vec![0.0; n];
    let mut fixed = vec![false; n];
    while fixed.contains(&false) {
        let raised = |share: f64, of: &dyn Fn(usize) -> bool| -> Vec<f64> {
            (0..n)
                .map(|i| {
                    if of(i) {
                        (share * demand[i]).max(low[i])
                    } else {
                        low[i]
                    }
                })
                .collect()
        };
        let (mut yes, mut no) = (0.0, 1.0);
        for _ in 0..40 {
            let middle = f64::midpoint(yes, no);
            if reaches(rows, limits, demand, &raised(middle, &|i| !fixed[i]), best) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        let next = raised(yes, &|i| !fixed[i]);
        let higher = |i: usize| {
            let mut more = next.clone();
            more[i] = (demand[i] * (yes + 1e-4)).min(demand[i]);
            more[i] > next[i] + TINY && reaches(rows, limits, demand, &more, best)
        };
        let stuck: Vec<usize> = (0..n).filter(|i| !fixed[*i] && !higher(*i)).collect();
        // Rounding: nothing may be stuck although nothing can be raised together.
        let all = stuck.is_empty();
        for (i, fixed) in fixed.iter_mut().enumerate() {
            *fixed = *fixed || all || stuck.contains(&i);
        }
        low = next;
    }
    low
}

/// Whether the largest sum is still reached when each API has at least `low`.
fn reaches(rows: &[Vec<f64>], limits: &[f64], demand: &[f64], low: &[f64], best: f64) -> bool {
    let left: Vec<f64> = rows
        .iter()
        .zip(limits)
        .map(|(row, limit)| limit - row.iter().zip(low).map(|(a, x)| a * x).sum::<f64>())
        .collect();
    if left.iter().any(|l| *l < -1e-7) {
        return false;
    }
    let left: Vec<f64> = left.iter().map(|l| l.max(0.0)).collect();
    let room: Vec<f64> = demand
        .iter()
        .zip(low)
        .map(|(d, l)| (d - l).max(0.0))
        .collect();
    let more: f64 = maximise(rows, &left, &room).iter().sum();
    low.iter().sum::<f64>() + more >= best - 1e-6 * best.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_service_is_filled_and_split_fairly() {
        // Two APIs share the first service, the second API also needs the second service.
        let rows = vec![vec![1.0, 1.0], vec![0.0, 1.0]];
        let x = maximise(&rows, &[100.0, 30.0], &[200.0, 50.0]);
        assert!((x.iter().sum::<f64>() - 100.0).abs() < 1e-6, "{x:?}");
        let fair = fairest(&rows, &[100.0, 30.0], &[200.0, 50.0]);
        assert!(
            (fair[0] - 80.0).abs() < 0.1 && (fair[1] - 20.0).abs() < 0.1,
            "{fair:?}"
        );
    }

    #[test]
    fn what_nobody_contends_for_is_served_whole() {
        let x = fairest(&[vec![1.0, 0.0]], &[10.0], &[50.0, 7.0]);
        assert!(
            (x[0] - 10.0).abs() < 1e-3 && (x[1] - 7.0).abs() < 1e-3,
            "{x:?}"
        );
    }

    #[test]
    fn long_paths_give_way_when_the_sum_needs_it() {
        // API 0 takes both services, so each of its calls costs a call of both others.
        let rows = vec![vec![1.0, 1.0, 0.0], vec![1.0, 0.0, 1.0]];
        let x = maximise(&rows, &[10.0, 10.0], &[10.0, 10.0, 10.0]);
        assert!(
            (x[1] - 10.0).abs() < 1e-6 && (x[2] - 10.0).abs() < 1e-6,
            "{x:?}"
        );
    }
}

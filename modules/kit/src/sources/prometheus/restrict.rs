//! Holds a PromQL query to series with a certain label. Pure.
//!
//! The query is parsed, the matcher is added to each selector of the parsed form, and that form is what is sent: nothing
//! of the user's text reaches Prometheus. A second matcher of the same label does not lift the first, as a series has to
//! match all of them. What was written is read again and compared, so that an error in writing refuses the query and
//! cannot widen it.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, VectorSelector};

/// Longest query. With a bound on it, neither reading nor writing can use up the stack.
const LONGEST: usize = 4096;
/// Most calls, brackets and operators around a selector.
const DEEPEST: usize = 100;
/// The one function that reads series that its arguments do not name.
const READS_MORE: &str = "info";

/// The query with `label="value"` in each selector, or why that cannot be had.
pub(crate) fn restrict(query: &str, label: &str, value: &str) -> Result<String, String> {
    if query.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut parsed = parser::parse(query)?;
    let matcher = Matcher::new(MatchOp::Equal, label, value);
    walk(&mut parsed, &mut |expr| {
        if let Expr::Call(call) = expr
            && call.func.name == READS_MORE
        {
            return Err(format!("{READS_MORE}() reads series of all namespaces"));
        }
        let Some(selector) = selector(expr) else {
            return Ok(());
        };
        if !selector.matchers.or_matchers.is_empty() {
            return Err("a selector has an 'or'".to_owned());
        }
        selector.matchers.matchers.push(matcher.clone());
        sort(selector);
        Ok(())
    })?;
    let text = parsed.to_string();
    let mut again = parser::parse(&text).map_err(|_| "it cannot be written again".to_owned())?;
    walk(&mut again, &mut |expr| {
        let Some(selector) = selector(expr) else {
            return Ok(());
        };
        sort(selector);
        if selector.matchers.matchers.contains(&matcher) {
            Ok(())
        } else {
            Err("a selector would stay as it is".to_owned())
        }
    })?;
    if again == parsed {
        Ok(text)
    } else {
        Err("it cannot be written again as it was".to_owned())
    }
}

fn selector(expr: &mut Expr) -> Option<&mut VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&mut matrix.vs),
        _ => None,
    }
}

/// The order of matchers says nothing, and writing changes it.
fn sort(selector: &mut VectorSelector) {
    selector
        .matchers
        .matchers
        .sort_by_cached_key(ToString::to_string);
}

/// Shows all parts of an expression, without recursion.
fn walk(
    root: &mut Expr,
    visit: &mut dyn FnMut(&mut Expr) -> Result<(), String>,
) -> Result<(), String> {
    let mut left = vec![(root, 0)];
    while let Some((expr, depth)) = left.pop() {
        if depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        visit(expr)?;
        let parts: Vec<&mut Expr> = match expr {
            Expr::Aggregate(it) => {
                let param = it.param.as_deref_mut().into_iter();
                param.chain([it.expr.as_mut()]).collect()
            }
            Expr::Unary(it) => vec![it.expr.as_mut()],
            Expr::Binary(it) => vec![it.lhs.as_mut(), it.rhs.as_mut()],
            Expr::Paren(it) => vec![it.expr.as_mut()],
            Expr::Subquery(it) => vec![it.expr.as_mut()],
            Expr::Call(it) => it.args.args.iter_mut().map(AsMut::as_mut).collect(),
            Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::VectorSelector(_)
            | Expr::MatrixSelector(_) => Vec::new(),
            Expr::Extension(_) => return Err("it has an unknown part".to_owned()),
        };
        left.extend(parts.into_iter().map(|part| (part, depth + 1)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mine(query: &str) -> Result<String, String> {
        restrict(query, "ns", "shop")
    }

    /// Without spaces, which say nothing outside of the strings of these cases.
    fn bare(text: &str) -> String {
        text.replace(' ', "")
    }

    #[test]
    fn fault_t5_every_selector_is_held_to_the_namespace() {
        for (query, restricted) in [
            ("up", r#"up{ns="shop"}"#),
            (r#"{__name__=~".+"}"#, r#"{__name__=~".+",ns="shop"}"#),
            (r#"up{ns="bank"}"#, r#"up{ns="bank",ns="shop"}"#),
            (r#"up{ns=~".*"}"#, r#"up{ns="shop",ns=~".*"}"#),
            (r#"up{ns!="shop"}"#, r#"up{ns!="shop",ns="shop"}"#),
            (
                "up # {ns=\"shop\"}\n + on() down",
                r#"up{ns="shop"} + on () down{ns="shop"}"#,
            ),
            ("up{a='}'} or `x` == bool 1", ""),
            (
                r#"up{a="\"} or secret{b=\""}"#,
                r#"up{a="\"} or secret{b=\"",ns="shop"}"#,
            ),
            (
                "up{a=`\"} or secret{b=\"`}",
                r#"up{a="\"} or secret{b=\"",ns="shop"}"#,
            ),
            (
                "up{a='\\'} or x{b=\\''}",
                r#"up{a="'} or x{b='",ns="shop"}"#,
            ),
            (
                "max_over_time(rate(a[5m])[1h:30s] offset 1m)",
                r#"max_over_time(rate(a{ns="shop"}[5m])[1h:30s] offset 1m)"#,
            ),
            (
                r#"label_replace(up, "ns", "bank", "", "")"#,
                r#"label_replace(up{ns="shop"}, "ns", "bank", "", "")"#,
            ),
            (
                "topk(scalar(count(a)), b) unless c",
                r#"topk(scalar(count(a{ns="shop"})), b{ns="shop"}) unless c{ns="shop"}"#,
            ),
            ("-(a @ end())", r#"-(a{ns="shop"} @ end())"#),
            ("sum by (ns) (a)", r#"sum by (ns) (a{ns="shop"})"#),
            ("absent(a)", r#"absent(a{ns="shop"})"#),
            ("vector(1)", "vector(1)"),
            ("1 + 2", "1 + 2"),
        ] {
            match mine(query) {
                Ok(text) => assert_eq!(bare(&text), bare(restricted), "{query}"),
                Err(error) => assert_eq!(restricted, "", "{query}: {error}"),
            }
        }
    }

    #[test]
    fn fault_t5_what_cannot_be_held_is_refused() {
        for query in [
            "",
            "up{",
            "up} or {a=\"b\"",
            r#"up{a="b" or c="d"}"#,
            r#"info(up, {ns="bank"})"#,
            "no_such_function(up)",
            &"(".repeat(3000),
            &format!("{}a{}", "(".repeat(500), ")".repeat(500)),
            &format!("a{}", " + a".repeat(300)),
            &format!("{{a=\"{}\"}}", "x".repeat(5000)),
        ] {
            mine(query).unwrap_err();
        }
        // A name that is written in quotes must not come out without them.
        for query in [r#"{"a} or secret{b"}"#, r#"{"a\"} or secret{b"}"#] {
            if let Ok(text) = mine(query) {
                assert!(!text.contains("secret{b,"), "{text}");
                assert_eq!(text.matches("ns=\"shop\"").count(), 1, "{text}");
            }
        }
    }

    fn selector() -> impl Strategy<Value = String> {
        let value = prop::string::string_regex(r#"[a-c{}()"'`\\,=# \n~]{0,8}"#).unwrap();
        ("[a-d]{1,3}", value, 0..4).prop_map(|(name, value, quote)| match quote {
            0 => name,
            1 => format!("{name}{{x={value:?}}}"),
            2 => format!("{{x=~\"{name}\",y!='{}'}}", value.escape_default()),
            _ => format!("{name}{{x=`{}`}}", value.replace('`', "")),
        })
    }

    fn expression() -> impl Strategy<Value = String> {
        selector().prop_recursive(4, 24, 3, |inner| {
            (inner.clone(), inner, 0..7).prop_map(|(a, b, kind)| match kind {
                0 => format!("({a}) + ({b})"),
                1 => format!("sum by (ns) ({a}) # {b}\n"),
                2 => format!("rate({a}[5m:1m])"),
                3 => format!("{a} unless on (ns) {b}"),
                4 => format!("label_replace({a}, \"ns\", \"$1\", \"x\", \"(.*)\")"),
                5 => format!("quantile(0.5, {a}) or {b}"),
                _ => format!("max_over_time(({a})[1h:] offset 5m)"),
            })
        })
    }

    proptest! {
        // Whatever comes through has the matcher in each selector, read by another parser than the one that wrote it.
        #[test]
        fn fault_t5_no_selector_escapes(query in expression()) {
            if let Ok(text) = mine(&query) {
                let mut parsed = parser::parse(&text).unwrap();
                walk(&mut parsed, &mut |expr| {
                    let matcher = Matcher::new(MatchOp::Equal, "ns", "shop");
                    if let Some(selector) = super::selector(expr) {
                        assert!(selector.matchers.matchers.contains(&matcher), "{text}");
                    }
                    Ok(())
                }).unwrap();
            }
        }

        #[test]
        fn never_panics(query in "\\PC{0,60}") {
            let _ = mine(&query);
        }
    }
}

//! Histories that were wrong once, found by the property.

use super::{Behavior, Content, Mode, Simulation, Step};

fn play(most: usize, patience: bool, steps: &[Step]) {
    let mut simulation = Simulation::new(Behavior {
        mode: Mode::Delta,
        partial: false,
        hints: false,
        most,
        patience,
    });
    for step in steps {
        simulation.step(step);
    }
    simulation.run_until_idle();
    simulation.check();
}

#[test]
fn a_change_that_is_taken_back_leaves_nothing_in_memory() {
    let steps = [
        Step::Update(4, Content::All(3)),
        Step::Star(true),
        Step::Write,
        Step::Update(0, Content::Both(1, 0)),
        Step::Answer,
        Step::Remove(4),
        Step::Pending(true),
        Step::Write,
        Step::Update(4, Content::Mine(3)),
    ];
    play(1, false, &steps);
}

#[test]
fn a_refusal_that_another_one_explains_leaves_nothing_in_memory() {
    let steps = [
        Step::Update(3, Content::Both(2, 0)),
        Step::Star(true),
        Step::Update(2, Content::All(0)),
        Step::Write,
        Step::Remove(2),
        Step::Answer,
        Step::Write,
        Step::Update(2, Content::NotOthers(1)),
        Step::Answer,
        Step::Pending(true),
        Step::Write,
        Step::Update(0, Content::Both(0, 0)),
    ];
    play(2, false, &steps);
}

#[test]
fn a_wildcard_that_begins_again_takes_back_what_was_sent_and_not_answered() {
    let steps = [
        Step::Star(true),
        Step::Update(0, Content::All(1)),
        Step::Write,
        Step::Update(0, Content::NotMine(0)),
        Step::Subscribe(1),
        Step::Star(false),
        Step::Wait,
        Step::Write,
        Step::Star(true),
    ];
    play(1, true, &steps);
}

//! Who of those that wait in line is placed next.
//!
//! Higher priorities first; within a priority one command of each agent in turn, the agent that was served longest ago
//! first; an agent's own commands in the order in which they came. So that neither a stream of urgent work nor one
//! busy agent starves anybody, a command that was passed over [`PASSED_OVER_MAX`] times comes before all that were not.

use std::collections::{BTreeMap, HashMap};

use domain::{AgentId, CommandId};

/// How often later commands may be placed before one that waits.
pub const PASSED_OVER_MAX: u32 = 12;

/// A command in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The command.
    pub id: CommandId,
    /// The agent it is for.
    pub agent: AgentId,
    /// The office's priority; higher is sooner.
    pub priority: i32,
    /// How many that came later were placed before it.
    pub passed_over: u32,
}

/// The order in which `line` (in order of arrival) is looked at. `served` says when each agent was last served, as a
/// count of placements.
pub fn order(line: &[Waiting], served: &HashMap<AgentId, u64>) -> Vec<CommandId> {
    let (overdue, others): (Vec<Waiting>, Vec<Waiting>) = line
        .iter()
        .partition(|waiting| waiting.passed_over >= PASSED_OVER_MAX);
    let mut by_priority: BTreeMap<i32, Vec<Waiting>> = BTreeMap::new();
    for waiting in others {
        by_priority.entry(waiting.priority).or_default().push(waiting);
    }
    let fair = by_priority
        .into_values()
        .rev()
        .flat_map(|same| one_of_each_in_turn(&same, served));
    overdue
        .into_iter()
        .chain(fair)
        .map(|waiting| waiting.id)
        .collect()
}

fn one_of_each_in_turn(line: &[Waiting], served: &HashMap<AgentId, u64>) -> Vec<Waiting> {
    let mut rounds: HashMap<AgentId, usize> = HashMap::new();
    let mut turns: Vec<_> = line
        .iter()
        .enumerate()
        .map(|(arrival, waiting)| {
            let round = rounds.entry(waiting.agent).or_default();
            *round += 1;
            let last = served.get(&waiting.agent).copied().unwrap_or(0);
            ((*round, last, arrival), *waiting)
        })
        .collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, waiting)| waiting).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use uuid::Uuid;

    use super::super::sample::{BE, FE, QA};
    use super::*;

    fn waiting(number: u128, agent: AgentId, priority: i32) -> Waiting {
        Waiting {
            id: CommandId(Uuid::from_u128(number)),
            agent,
            priority,
            passed_over: 0,
        }
    }

    fn numbers(order: Vec<CommandId>) -> Vec<u128> {
        order.into_iter().map(|id| id.0.as_u128()).collect()
    }

    #[test]
    fn agents_take_turns_and_each_agents_commands_keep_their_order() {
        let line = [
            waiting(1, FE, 0),
            waiting(2, FE, 0),
            waiting(3, FE, 0),
            waiting(4, BE, 0),
            waiting(5, QA, 0),
        ];
        assert_eq!(numbers(order(&line, &HashMap::new())), [1, 4, 5, 2, 3]);
        let served = HashMap::from([(FE, 9), (BE, 3)]);
        assert_eq!(numbers(order(&line, &served)), [5, 4, 1, 2, 3]);
    }

    #[test]
    fn urgent_work_comes_first_but_not_for_ever() {
        let mut line = [waiting(1, FE, 0), waiting(2, BE, 5)];
        assert_eq!(numbers(order(&line, &HashMap::new())), [2, 1]);
        line[0].passed_over = PASSED_OVER_MAX;
        assert_eq!(numbers(order(&line, &HashMap::new())), [1, 2]);
    }

    /// One place, commands that come as fast as they are served, most of them urgent and of one agent: whatever comes
    /// in whatever order, nobody waits longer than the line before it and the times it may be passed over.
    #[test]
    fn nobody_starves_whatever_comes() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let agents = [FE, BE, QA];
            let (mut line, mut served) = (Vec::<Waiting>::new(), HashMap::new());
            let mut came: HashMap<CommandId, (u64, usize)> = HashMap::new();
            let mut number = 0;
            for step in 1..400_u64 {
                for _ in 0..random.random_range(0..=2) {
                    if line.len() >= 20 {
                        break;
                    }
                    number += 1;
                    let greedy = random.random_bool(0.7);
                    let agent = if greedy {
                        FE
                    } else {
                        agents[random.random_range(0..3)]
                    };
                    let urgent = if greedy { 9 } else { random.random_range(-3..=3) };
                    let new = waiting(number, agent, urgent);
                    came.insert(new.id, (step, line.len()));
                    line.push(new);
                }
                let Some(next) = order(&line, &served).first().copied() else {
                    continue;
                };
                let at = line.iter().position(|one| one.id == next).unwrap();
                let placed = line.remove(at);
                line[..at].iter_mut().for_each(|one| one.passed_over += 1);
                served.insert(placed.agent, step);
                let (since, before) = came[&next];
                let bound = u64::from(PASSED_OVER_MAX) + before as u64 + 1;
                assert!(
                    step - since <= bound,
                    "seed {seed}: {placed:?} waited {} steps, {before} were before it",
                    step - since
                );
            }
        }
    }

    #[test]
    fn the_order_holds_every_command_once() {
        let line: Vec<_> = (0..30)
            .map(|number| {
                let agent = [FE, BE, QA][number as usize % 3];
                Waiting {
                    passed_over: (number as u32 * 7) % 20,
                    ..waiting(number, agent, (number % 4) as i32)
                }
            })
            .collect();
        let mut all = numbers(order(&line, &HashMap::new()));
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
    }
}

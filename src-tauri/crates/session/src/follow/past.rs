//! What earlier turns leave behind: the ids of their prompts, so that their late or doubled reports are known for what
//! they are, and the background work they left running, which is not the next turn's.

use std::collections::VecDeque;

/// Ids that are kept.
const IDS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Past {
    prompts: VecDeque<String>,
    tasks: VecDeque<String>,
    /// Prompts that were sent and whose ids were never told: they may still come, late.
    unnamed: VecDeque<String>,
}

impl Past {
    pub(super) fn knows(&self, prompt: &str) -> bool {
        self.prompts.iter().any(|known| known == prompt)
    }

    pub(super) fn add_prompt(&mut self, prompt: String) {
        keep(&mut self.prompts, prompt);
    }

    /// A turn with that prompt is over, and nobody has told the prompt's id.
    pub(super) fn add_unnamed(&mut self, prompt: String) {
        keep(&mut self.unnamed, prompt);
    }

    /// Whether an id that is told of this prompt may be an earlier one's.
    pub(super) fn has_unnamed(&self, prompt: &str) -> bool {
        self.unnamed.iter().any(|unnamed| unnamed == prompt)
    }

    pub(super) fn add_task(&mut self, task: String) {
        keep(&mut self.tasks, task);
    }

    /// The ids of at most `max` prompts, oldest first.
    pub(super) fn newest_prompts(&self, max: usize) -> Vec<String> {
        newest(&self.prompts, max)
    }

    /// At most `max` pieces of work that were left running, oldest first.
    pub(super) fn newest_tasks(&self, max: usize) -> Vec<String> {
        newest(&self.tasks, max)
    }

    /// Background work that was left running before now.
    pub(super) fn tasks(&self) -> Vec<String> {
        self.tasks.iter().cloned().collect()
    }
}

fn newest(ids: &VecDeque<String>, max: usize) -> Vec<String> {
    ids.iter().skip(ids.len().saturating_sub(max)).cloned().collect()
}

fn keep(ids: &mut VecDeque<String>, id: String) {
    if ids.contains(&id) {
        return;
    }
    if ids.len() == IDS_MAX {
        ids.pop_front();
    }
    ids.push_back(id);
}

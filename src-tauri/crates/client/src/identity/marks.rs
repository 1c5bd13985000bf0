//! By what this computer is told from a copy of it: the data folder of a cloned disk or image must not go on as the
//! same client beside the original.
//!
//! Marks are hashes of things that the operating system shows to everybody. Nothing here decides by a single sign:
//! cards are changed, systems are installed anew, and what cannot be read proves nothing. Called by
//! [`super::Settled::of`] at each start; never writes.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Cards that are remembered, the newest of them; a computer has a few.
const CARDS_MAX: usize = 16;
/// Longest file of the system that is read here.
const FILE_BYTES_MAX: usize = 256;
/// Hex digits of a mark: enough to tell machines apart.
const MARK_DIGITS: usize = 32;
/// `addr_assign_type` of an address that the card was made with (linux/netdevice.h, `NET_ADDR_PERM`).
const PERMANENT: &str = "0";
/// First halves of addresses that hypervisors hand out: QEMU, VirtualBox, VMware, Hyper-V, Xen, Parallels.
const MADE_UP: &[&str] = &[
    "52:54:00", "08:00:27", "00:05:69", "00:0c:29", "00:1c:14", "00:50:56", "00:15:5d", "00:16:3e",
    "00:1c:42",
];

/// What this computer is known by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// Of the installed system: `/etc/machine-id`. A careless copy has the same.
    system: Option<String>,
    /// Of the mainboard, or what a hypervisor says it is; most systems show it to root only.
    board: Option<String>,
    /// Of network cards that are built in, with the address they were made with.
    cards: Vec<Card>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    address: String,
    /// The address was made up by a hypervisor: it changes when a machine is copied, never by a screwdriver.
    made_up: bool,
}

/// What the marks of then and of now say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same computer, as far as can be told.
    Same,
    /// Another one, which holds a copy.
    Other,
}

impl Marks {
    /// Reads them. `root` is `/`, but for tests.
    pub fn of_this_machine(root: &Path) -> Marks {
        let file = |path: &str| short_file(&root.join(path));
        let system =
            file("etc/machine-id").filter(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()));
        let board = file("sys/class/dmi/id/product_uuid").filter(|id| is_telling(id));
        Marks {
            system: system.map(|id| mark("system", &id)),
            board: board.map(|id| mark("board", &id.to_lowercase())),
            cards: cards(&root.join("sys/class/net")),
        }
    }

    /// Compares what is remembered with what is there.
    pub fn verdict(&self, now: &Marks) -> Verdict {
        let both = |then: &Option<String>, now: &Option<String>| Some(then.as_ref()? == now.as_ref()?);
        let is_known = |card: &Card| self.cards.iter().any(|then| then.address == card.address);
        let told = !self.cards.is_empty() && !now.cards.is_empty();
        let made_up = self.cards.iter().chain(&now.cards).all(|card| card.made_up);
        let cards = told.then(|| now.cards.iter().any(is_known));
        match (
            both(&self.board, &now.board),
            cards,
            both(&self.system, &now.system),
        ) {
            // A card of it is here.
            (_, Some(true), _) => Verdict::Same,
            (Some(false), _, _) => Verdict::Other,
            // Boards exist that were all made with one number.
            (_, Some(false), Some(false)) => Verdict::Other,
            // The same system behind other cards: a person changes a card, a hypervisor makes a copy.
            (None, Some(false), Some(true)) if made_up => Verdict::Other,
            _ => Verdict::Same,
        }
    }

    /// What is to be remembered from now on: what is there now, and cards of before, which may come back.
    pub fn with(&self, now: &Marks) -> Marks {
        let mut cards = now.cards.clone();
        let gone = self
            .cards
            .iter()
            .filter(|then| !now.cards.iter().any(|card| card.address == then.address));
        cards.extend(gone.cloned());
        cards.truncate(CARDS_MAX);
        Marks {
            system: now.system.clone().or_else(|| self.system.clone()),
            board: now.board.clone().or_else(|| self.board.clone()),
            cards,
        }
    }
}

/// Cards that are built in, that is not those on USB, which are carried from one computer to the next.
fn cards(folder: &Path) -> Vec<Card> {
    let Ok(found) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut cards: Vec<Card> = found.flatten().filter_map(|entry| card(&entry.path())).collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    cards.dedup();
    cards.truncate(CARDS_MAX);
    cards
}

fn card(folder: &Path) -> Option<Card> {
    // Bridges, tunnels and containers' ends have no device.
    let device = std::fs::canonicalize(folder.join("device")).ok()?;
    if device
        .iter()
        .any(|part| part.to_string_lossy().starts_with("usb"))
    {
        return None;
    }
    // An address that was made up for a visit to a network says nothing.
    if short_file(&folder.join("addr_assign_type"))? != PERMANENT {
        return None;
    }
    let address = short_file(&folder.join("address"))?.to_lowercase();
    let first = u8::from_str_radix(address.get(..2)?, 16).ok()?;
    if address.len() != 17 || address.chars().all(|c| matches!(c, '0' | ':')) {
        return None;
    }
    // Bit 1 of the first byte: not given by a maker (IEEE 802).
    let made_up = first & 0b10 != 0 || MADE_UP.iter().any(|half| address.starts_with(half));
    Some(Card {
        address: mark("card", &address),
        made_up,
    })
}

/// Some boards come with a number that is none.
fn is_telling(uuid: &str) -> bool {
    let digits: Vec<char> = uuid.chars().filter(|c| *c != '-').collect();
    digits.len() == 32
        && digits.iter().all(char::is_ascii_hexdigit)
        && digits.iter().any(|digit| *digit != digits[0])
        && !uuid.to_lowercase().starts_with("03000200-0400-0500-0006")
}

fn short_file(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= FILE_BYTES_MAX).then(|| text.to_owned())
}

/// The marks lie in a file: what they stand for must not be read from there (machine-id(5) asks for that).
fn mark(what: &str, text: &str) -> String {
    let hash = Sha256::digest(format!("semo-office/{what}/{text}"));
    let mut digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(MARK_DIGITS);
    digits
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A computer as a folder shows it. A card is its address, `usb ` before one that is plugged in, `random ` before
    /// one with an address for a visit.
    pub fn computer(system: &str, board: &str, cards: &[&str]) -> Marks {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{text}\n")).unwrap();
        };
        if !system.is_empty() {
            put("etc/machine-id", &system.repeat(32));
        }
        if !board.is_empty() {
            put("sys/class/dmi/id/product_uuid", board);
        }
        put("sys/class/net/lo/address", "00:00:00:00:00:00");
        for (index, card) in cards.iter().enumerate() {
            let (kind, address) = card.rsplit_once(' ').unwrap_or(("", card));
            let name = format!("sys/class/net/eth{index}");
            let device = format!(
                "sys/devices/pci0/{}{index}",
                if kind == "usb" { "usb" } else { "0000:" }
            );
            std::fs::create_dir_all(root.path().join(&device)).unwrap();
            put(&format!("{name}/address"), address);
            put(
                &format!("{name}/addr_assign_type"),
                if kind == "random" { "3" } else { "0" },
            );
            std::os::unix::fs::symlink(root.path().join(device), root.path().join(name).join("device"))
                .unwrap();
        }
        Marks::of_this_machine(root.path())
    }

    const BOARD_A: &str = "4c4c4544-0051-3510-8052-b7c04f4a3432";
    const BOARD_B: &str = "4c4c4544-0051-3510-8052-b7c04f4a3433";
    const CARD_A: &str = "f8:75:a4:00:00:0a";
    const CARD_B: &str = "f8:75:a4:00:00:0b";
    const VIRTUAL_A: &str = "52:54:00:00:00:0a";
    const VIRTUAL_B: &str = "52:54:00:00:00:0b";

    #[test]
    fn a_machine_that_was_changed_is_the_same() {
        for (case, then, now) in [
            (
                "nothing changed",
                computer("a", BOARD_A, &[CARD_A]),
                computer("a", BOARD_A, &[CARD_A]),
            ),
            (
                "a card was added",
                computer("a", "", &[CARD_A]),
                computer("a", "", &[CARD_A, CARD_B]),
            ),
            (
                "the only card was changed",
                computer("a", "", &[CARD_A]),
                computer("a", "", &[CARD_B]),
            ),
            (
                "the system was installed anew",
                computer("a", "", &[CARD_A]),
                computer("b", "", &[CARD_A]),
            ),
            (
                "the mainboard was changed",
                computer("a", BOARD_A, &[CARD_A]),
                computer("a", BOARD_B, &[CARD_A]),
            ),
            (
                "nothing can be read",
                computer("a", BOARD_A, &[CARD_A]),
                computer("", "", &[]),
            ),
            (
                "nothing was remembered",
                Marks::default(),
                computer("a", BOARD_A, &[CARD_A]),
            ),
            (
                "a container was made anew",
                computer("a", "", &[]),
                computer("b", "", &[]),
            ),
            (
                "another dock",
                computer("a", "", &["usb f8:75:a4:00:00:0a"]),
                computer("a", "", &["usb f8:75:a4:00:00:0b"]),
            ),
            (
                "an address for a visit",
                computer("a", "", &[CARD_A]),
                computer("b", "", &["random 02:00:00:00:00:01"]),
            ),
        ] {
            assert_eq!(then.verdict(&now), Verdict::Same, "{case}");
        }
    }

    #[test]
    fn a_copy_is_another_machine() {
        for (case, then, now) in [
            (
                "the disk in another computer",
                computer("a", BOARD_A, &[CARD_A]),
                computer("a", BOARD_B, &[CARD_B]),
            ),
            (
                "an image, prepared with care",
                computer("a", "", &[VIRTUAL_A]),
                computer("b", "", &[VIRTUAL_B]),
            ),
            (
                "an image, copied as it is",
                computer("a", "", &[VIRTUAL_A]),
                computer("a", "", &[VIRTUAL_B]),
            ),
            (
                "a board of another machine, cards unknown",
                computer("a", BOARD_A, &[]),
                computer("a", BOARD_B, &[]),
            ),
        ] {
            assert_eq!(then.verdict(&now), Verdict::Other, "{case}");
        }
    }

    #[test]
    fn a_number_that_all_boards_have_tells_nothing() {
        for number in [
            "00000000-0000-0000-0000-000000000000",
            "03000200-0400-0500-0006-000700080009",
            "To be filled",
        ] {
            assert_eq!(computer("a", number, &[]).board, None, "{number}");
        }
    }

    #[test]
    fn cards_that_come_and_go_are_remembered_within_a_limit_and_never_in_plain_words() {
        let mut marks = computer("a", "", &[CARD_A]);
        for number in 0..40 {
            marks = marks.with(&computer("a", "", &[&format!("f8:75:a4:00:01:{number:02x}")]));
        }
        assert_eq!(marks.cards.len(), CARDS_MAX);
        assert_eq!(
            marks.verdict(&computer("b", "", &["f8:75:a4:00:01:27"])),
            Verdict::Same
        );
        let text = serde_json::to_string(&marks).unwrap();
        assert!(
            !text.contains("f8:75") && !text.contains(&"a".repeat(32)),
            "{text}"
        );
    }
}

//! Relations between tables: what foreign keys, junction tables and functions say about embedding.
//!
//! Pure. `read` gives the foreign keys, `plan` looks relations up.

use std::collections::{BTreeSet, HashMap};

/// Pairs of columns: one of the table a relation starts from, one of the table it leads to.
pub(crate) type Pairs = Vec<(String, String)>;

/// How two tables belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// The foreign key stands in the table it starts from.
    ManyToOne { constraint: String, columns: Pairs },
    /// As before, and the key is unique there; `parent`: seen from the table it refers to.
    OneToOne {
        constraint: String,
        columns: Pairs,
        parent: bool,
    },
    /// The foreign key stands in the other table.
    OneToMany { constraint: String, columns: Pairs },
    /// Both are named by a third table. `source` and `target` pair a column of the table with one of the junction.
    ManyToMany {
        junction: String,
        constraints: (String, String),
        source: Pairs,
        target: Pairs,
    },
    /// A function of one row of the table.
    Computed {
        schema: String,
        function: String,
        to_one: bool,
    },
}

/// A way from one table to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub from: String,
    pub to: String,
    pub to_is_view: bool,
    pub link: Link,
}

impl Relation {
    /// Whether at most one row is found.
    pub fn is_to_one(&self) -> bool {
        match &self.link {
            Link::ManyToOne { .. } | Link::OneToOne { .. } => true,
            Link::OneToMany { .. } | Link::ManyToMany { .. } => false,
            Link::Computed { to_one, .. } => *to_one,
        }
    }

    /// The constraint and columns of a relation by one foreign key.
    pub fn by_key(&self) -> Option<(&str, &Pairs)> {
        match &self.link {
            Link::ManyToOne { constraint, columns }
            | Link::OneToOne {
                constraint, columns, ..
            }
            | Link::OneToMany { constraint, columns } => Some((constraint, columns)),
            Link::ManyToMany { .. } | Link::Computed { .. } => None,
        }
    }

    /// Columns of the table it starts from that the join needs; `None`: it cannot be known.
    pub fn needs(&self) -> Option<Vec<&str>> {
        let columns = match &self.link {
            Link::ManyToOne { columns, .. }
            | Link::OneToOne { columns, .. }
            | Link::OneToMany { columns, .. } => columns,
            Link::ManyToMany { source, .. } => source,
            Link::Computed { .. } => return None,
        };
        Some(columns.iter().map(|(own, _)| own.as_str()).collect())
    }

    fn rank(&self) -> (String, u8, String) {
        let (rank, name) = match &self.link {
            Link::OneToMany { constraint, .. } => (0, constraint.clone()),
            Link::ManyToOne { constraint, .. } => (1, constraint.clone()),
            Link::OneToOne { constraint, .. } => (2, constraint.clone()),
            Link::ManyToMany {
                junction,
                constraints,
                ..
            } => (3, format!("{junction} {} {}", constraints.0, constraints.1)),
            Link::Computed { function, .. } => (4, function.clone()),
        };
        (self.to.clone(), rank, name)
    }
}

/// A foreign key between two relations that are known by name, seen from where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ForeignKey {
    pub from: String,
    pub to: String,
    pub from_is_view: bool,
    pub to_is_view: bool,
    pub constraint: String,
    pub columns: Pairs,
    /// The columns are unique where the key stands.
    pub unique: bool,
}

fn turned(columns: &Pairs) -> Pairs {
    columns
        .iter()
        .map(|(own, other)| (other.clone(), own.clone()))
        .collect()
}

/// All relations that `keys` make, by the table they start from. `primary` gives the primary key of a table.
pub(in super::super) fn all(
    keys: &[ForeignKey],
    primary: &HashMap<&str, &[String]>,
) -> HashMap<String, Vec<Relation>> {
    let mut found: Vec<Relation> = Vec::new();
    for key in keys {
        let relation = |forth: bool, link| Relation {
            from: if forth { key.from.clone() } else { key.to.clone() },
            to: if forth { key.to.clone() } else { key.from.clone() },
            to_is_view: if forth { key.to_is_view } else { key.from_is_view },
            link,
        };
        let constraint = key.constraint.clone();
        let columns = key.columns.clone();
        let back = turned(&key.columns);
        if key.unique {
            let one = |columns, parent| Link::OneToOne {
                constraint: constraint.clone(),
                columns,
                parent,
            };
            found.push(relation(true, one(columns, false)));
            found.push(relation(false, one(back, true)));
        } else {
            let constraint_too = constraint.clone();
            found.push(relation(true, Link::ManyToOne { constraint, columns }));
            found.push(relation(
                false,
                Link::OneToMany {
                    constraint: constraint_too,
                    columns: back,
                },
            ));
        }
    }
    found.extend(through_junctions(keys, primary));
    let mut by_table: HashMap<String, Vec<Relation>> = HashMap::new();
    for relation in found {
        by_table.entry(relation.from.clone()).or_default().push(relation);
    }
    for relations in by_table.values_mut() {
        sort(relations);
    }
    by_table
}

/// Puts relations into the order in which an answer lists them.
pub(super) fn sort(relations: &mut [Relation]) {
    relations.sort_by_cached_key(Relation::rank);
}

/// A table is a junction when two of its foreign keys are part of its primary key.
fn through_junctions(keys: &[ForeignKey], primary: &HashMap<&str, &[String]>) -> Vec<Relation> {
    let mut found = Vec::new();
    for one in keys.iter().filter(|key| !key.unique) {
        let own_key: BTreeSet<&str> = match primary.get(one.from.as_str()) {
            Some(columns) if !columns.is_empty() => columns.iter().map(String::as_str).collect(),
            _ => continue,
        };
        for two in keys.iter().filter(|key| !key.unique && key.from == one.from) {
            let used = one.columns.iter().chain(&two.columns);
            if one.constraint == two.constraint
                || !used.map(|(own, _)| own.as_str()).all(|own| own_key.contains(own))
            {
                continue;
            }
            found.push(Relation {
                from: one.to.clone(),
                to: two.to.clone(),
                to_is_view: two.to_is_view,
                link: Link::ManyToMany {
                    junction: one.from.clone(),
                    constraints: (one.constraint.clone(), two.constraint.clone()),
                    source: turned(&one.columns),
                    target: turned(&two.columns),
                },
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: &str, to: &str, constraint: &str, columns: &[(&str, &str)], unique: bool) -> ForeignKey {
        ForeignKey {
            from: from.to_owned(),
            to: to.to_owned(),
            from_is_view: false,
            to_is_view: false,
            constraint: constraint.to_owned(),
            columns: columns
                .iter()
                .map(|(own, other)| ((*own).to_owned(), (*other).to_owned()))
                .collect(),
            unique,
        }
    }

    #[test]
    fn a_foreign_key_leads_both_ways_and_a_junction_through() {
        let keys = [
            key("messages", "users", "m_u", &[("username", "username")], false),
            key("details", "channels", "d_c", &[("id", "id")], true),
            key("pc", "products", "pc_p", &[("product_id", "id")], false),
            key("pc", "categories", "pc_c", &[("category_id", "id")], false),
        ];
        let junction = ["product_id".to_owned(), "category_id".to_owned()];
        let primary: HashMap<&str, &[String]> = HashMap::from([("pc", junction.as_slice())]);
        let relations = all(&keys, &primary);
        assert!(matches!(relations["messages"][0].link, Link::ManyToOne { .. }));
        assert!(matches!(relations["users"][0].link, Link::OneToMany { .. }));
        assert!(relations["details"][0].is_to_one() && relations["channels"][0].is_to_one());
        let through: Vec<_> = relations["products"]
            .iter()
            .filter(|r| r.to == "categories")
            .collect();
        assert!(
            matches!(&through[..], [one] if matches!(&one.link, Link::ManyToMany { junction, .. } if junction == "pc"))
        );
        let without: HashMap<&str, &[String]> = HashMap::new();
        assert!(
            all(&keys, &without)["products"]
                .iter()
                .all(|r| r.to != "categories")
        );
    }
}

//! Tables of keys: what each is called, what it takes, what it does; and how a section's assignments are applied.

use super::index::Index;
use super::problem::{Place, Problem, did_you_mean, shown};
use super::syntax::Assignment;
use super::value::Parsed;
use super::words::check_specifiers;

/// What a value is read with: the rest of what there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Where the value stands.
    pub(super) place: &'a Place,
    /// What else is declared.
    pub(super) index: &'a Index,
}

/// Takes a value that is not empty.
pub(super) type Setter<T> = fn(&mut T, &str, &Context<'_>) -> Parsed<()>;

/// What may be done with a key.
#[derive(Debug)]
pub(super) enum Rule<T> {
    /// The last one counts.
    Once(Setter<T>),
    /// The same, of a value that systemd will not see, so that a percent sign in it is one.
    Plain(Setter<T>),
    /// Each adds to those before; an empty one takes all before it back.
    List(Setter<T>),
    /// It is known from elsewhere, and there is no such thing here.
    Refused,
}

/// A key of a section.
#[derive(Debug)]
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    /// What it takes, for people: `BYTES`.
    pub(super) form: &'static str,
    /// What it does, for people; of a refused one what to do instead.
    pub(super) text: &'static str,
    pub(super) rule: Rule<T>,
}

impl<T> Key<T> {
    pub(super) const fn once(name: &'static str, form: &'static str, text: &'static str, setter: Setter<T>) -> Self {
        Self { name, form, text, rule: Rule::Once(setter) }
    }

    pub(super) const fn plain(name: &'static str, form: &'static str, text: &'static str, setter: Setter<T>) -> Self {
        Self { name, form, text, rule: Rule::Plain(setter) }
    }

    pub(super) const fn list(name: &'static str, form: &'static str, text: &'static str, setter: Setter<T>) -> Self {
        Self { name, form, text, rule: Rule::List(setter) }
    }

    pub(super) const fn refused(name: &'static str, text: &'static str) -> Self {
        Self { name, form: "", text, rule: Rule::Refused }
    }
}

/// A key, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What it takes; empty when it is refused.
    pub form: &'static str,
    /// What it does, or what to do instead.
    pub text: &'static str,
    /// Whether several add up.
    pub list: bool,
}

impl<T> Key<T> {
    /// The same, for people.
    pub(super) fn described(&self) -> Described {
        Described { name: self.name, form: self.form, text: self.text, list: matches!(self.rule, Rule::List(_)) }
    }
}

/// Applies what a section says, key by key in the order of the table, so that what comes of it does not depend on the
/// order in the file. Every mistake is added to `problems`.
pub(super) fn apply<T>(
    keys: &[&Key<T>],
    section: &[&Assignment],
    target: &mut T,
    index: &Index,
    problems: &mut Vec<Problem>,
) {
    problems.extend(section.iter().filter_map(|assignment| unknown(keys, assignment)));
    for key in keys {
        let all: Vec<_> = section.iter().filter(|assignment| assignment.key == key.name).collect();
        // What stands before an empty one is taken back by it.
        let start = all.iter().rposition(|assignment| assignment.value.is_empty()).map_or(0, |last| last + 1);
        let mut counted = &all[start..];
        let setter = match key.rule {
            Rule::Refused => {
                problems.extend(counted.iter().map(|assignment| assignment.problem(key.text)));
                continue;
            }
            Rule::Once(setter) | Rule::Plain(setter) => {
                counted = &counted[counted.len().saturating_sub(1)..];
                setter
            }
            Rule::List(setter) => setter,
        };
        for assignment in counted {
            let context = Context { place: &assignment.place, index };
            let checked = match key.rule {
                Rule::Plain(_) => Ok(()),
                _ => check_specifiers(&assignment.value),
            };
            let set = checked.and_then(|()| setter(target, &assignment.value, &context));
            problems.extend(set.err().map(|message| assignment.problem(message)));
        }
    }
}

fn unknown<T>(keys: &[&Key<T>], assignment: &Assignment) -> Option<Problem> {
    // systemd leaves such keys to others.
    if assignment.key.starts_with("X-") || keys.iter().any(|key| key.name == assignment.key) {
        return None;
    }
    let used = keys.iter().filter(|key| !matches!(key.rule, Rule::Refused)).map(|key| key.name);
    let meant = did_you_mean(&assignment.key, used);
    let advice = if meant.is_empty() { ": holm.unit(5) lists the keys" } else { &meant };
    Some(assignment.problem(format!("no such key in [{}]{advice}", shown(&assignment.section))))
}

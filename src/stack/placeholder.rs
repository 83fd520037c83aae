//! Stand-ins for values that are not known yet, so that a stack can be planned all the same.
//!
//! Keys and lengths decide which resources there are, so they must be known: a map or list that is not known as a whole
//! gets no stand-in. Whoever plans with stand-ins must hold its result for speculative.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::address::text_keys;
use super::types::Type;
use crate::value::{Map, Path, Segment, Value};

/// What stands for text. A plan that holds it holds a stand-in.
const TEXT: &str = "clawd-placeholder";

/// What stands for a number: whole, and nothing that anybody would set. It is negative, because a number may say how many there
/// are: OpenTofu refuses that, and would set out to plan seventy million otherwise.
const NUMBER: i64 = -70_460_293;

/// Stand-ins of this length are known for what they are within other texts.
const TELLING: usize = 6;

/// The segment of a pattern that stands for any key or index.
const ANY: &str = "*";

/// Stand-ins of the plan's own, by pattern: `instances.*.ami`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placeholders(Vec<(Vec<SmolStr>, Value)>);

/// Variables with stand-ins in them.
#[derive(Debug, Clone, Default)]
pub struct Filled {
    /// The variables, all known.
    pub vars: Map,
    /// What stands in: as text, to be looked for in a plan's outputs.
    texts: BTreeSet<SmolStr>,
    /// Whether a bool stands in.
    bools: bool,
    /// Whether anything stands in: an empty list leaves no text to look for.
    stood_in: bool,
}

/// A value whose shape is not known, so that nothing can stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Where in the variables.
    pub path: Path,
    /// What it may hold.
    pub ty: String,
}

impl Placeholders {
    /// Reads the patterns of a plan.
    #[must_use]
    pub fn new(given: &Map) -> Self {
        let split = |pattern: &SmolStr| pattern.split('.').map(SmolStr::new).collect();
        Self(given.iter().map(|(pattern, value)| (split(pattern), value.clone())).collect())
    }

    /// The stand-in for a place.
    fn at(&self, place: &[SmolStr]) -> Option<&Value> {
        let fits = |pattern: &[SmolStr]| {
            pattern.len() == place.len()
                && pattern.iter().zip(place).all(|(want, have)| want == ANY || want == have)
        };
        self.0.iter().find(|(pattern, _)| fits(pattern)).map(|(_, value)| value)
    }

    /// Puts the plan's own stand-ins at what is not known; anything else stays as it is.
    #[must_use]
    pub fn overlay(&self, vars: &Map) -> Map {
        if self.0.is_empty() {
            return vars.clone();
        }
        let mut place = Vec::new();
        vars.iter().map(|(name, value)| (name.clone(), self.overlay_value(name, value, &mut place))).collect()
    }

    fn overlay_value(&self, segment: &SmolStr, value: &Value, place: &mut Vec<SmolStr>) -> Value {
        place.push(segment.clone());
        let result = match value {
            value if !value.has_unknown() => value.clone(),
            _ if self.at(place).is_some() => self.at(place).cloned().unwrap_or_default(),
            Value::Map(map) => Value::Map(
                map.iter().map(|(key, item)| (key.clone(), self.overlay_value(key, item, place))).collect(),
            ),
            Value::List(items) => Value::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.overlay_value(&index.to_string().into(), item, place))
                    .collect(),
            ),
            other => other.clone(),
        };
        place.pop();
        result
    }

    /// Puts the plan's own stand-ins at what is not known, and remembers which; anything else stays unknown.
    #[must_use]
    pub fn own(&self, vars: &Map) -> Filled {
        let mut filled = Filled { vars: self.overlay(vars), ..Filled::default() };
        let own: Vec<(Option<&Value>, Value)> =
            filled.vars.iter().map(|(name, value)| (vars.get(name), value.clone())).collect();
        for (before, after) in own {
            filled.note_given(before, &after);
        }
        filled
    }

    /// Puts a stand-in at every leaf that is not known: the plan's own, else one of the variable's type.
    ///
    /// # Errors
    /// The first place whose shape is not known.
    pub fn fill<'t>(&self, vars: &Map, type_of: impl Fn(&str) -> Option<&'t Type>) -> Result<Filled, Stuck> {
        let mut filled = Filled::default();
        let overlaid = self.overlay(vars);
        for (name, value) in overlaid.iter() {
            filled.note_given(vars.get(name), value);
            let ty = type_of(name).unwrap_or(&Type::Any);
            let value = filled.value(ty, value, &Path::root().key(name.clone()))?;
            filled.vars.insert(name.clone(), value);
        }
        Ok(filled)
    }
}

impl Filled {
    /// Notes the stand-ins that the plan itself gave: what is there now and was not known before.
    fn note_given(&mut self, before: Option<&Value>, after: &Value) {
        match (before, after) {
            (Some(Value::Map(before)), Value::Map(after)) => {
                for (key, item) in after.iter() {
                    self.note_given(before.get(key), item);
                }
            }
            (Some(Value::List(before)), Value::List(after)) => {
                for (before, after) in before.iter().zip(after) {
                    self.note_given(Some(before), after);
                }
            }
            (Some(before), after) if before.has_unknown() && !after.has_unknown() => {
                self.stood_in = true;
                self.note(after);
            }
            _ => {}
        }
    }

    fn note(&mut self, value: &Value) {
        match value {
            Value::String(text) if !text.is_empty() => {
                self.texts.insert(text.clone());
            }
            Value::Int(number) => {
                self.texts.insert(number.to_string().into());
            }
            Value::Float(number) => {
                self.texts.insert(number.to_string().into());
            }
            Value::Bool(_) => self.bools = true,
            Value::List(items) => items.iter().for_each(|item| self.note(item)),
            Value::Map(map) => map.values().for_each(|item| self.note(item)),
            _ => {}
        }
    }

    fn value(&mut self, ty: &Type, value: &Value, at: &Path) -> Result<Value, Stuck> {
        let any = &Type::Any;
        match value {
            Value::Unknown | Value::Ref(_) | Value::Template(_) => {
                self.stood_in = true;
                self.stand_in(ty, value, at)
            }
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    self.value(ty.below(&Segment::Index(index)).unwrap_or(any), item, &at.index(index))
                })
                .collect::<Result<_, _>>()
                .map(Value::List),
            Value::Map(map) => map
                .iter()
                .map(|(key, item)| {
                    let below = ty.below(&Segment::Key(key.clone())).unwrap_or(any);
                    Ok((key.clone(), self.value(below, item, &at.key(key.clone()))?))
                })
                .collect::<Result<_, _>>()
                .map(Value::Map),
            other => Ok(other.clone()),
        }
    }

    /// What stands for a value of a type.
    fn stand_in(&mut self, ty: &Type, value: &Value, at: &Path) -> Result<Value, Stuck> {
        let stand_in = match ty {
            Type::String => Value::from(TEXT),
            // A text with gaps is text whatever the variable takes.
            Type::Any if matches!(value, Value::Template(_)) => Value::from(TEXT),
            Type::Number => Value::Int(NUMBER),
            Type::Bool => Value::Bool(true),
            Type::Object(attributes) => {
                let known = attributes.iter().filter(|attribute| !attribute.optional).map(|attribute| {
                    let below = at.key(attribute.name.clone());
                    Ok((attribute.name.clone(), self.stand_in(&attribute.ty, &Value::Unknown, &below)?))
                });
                return known.collect::<Result<_, _>>().map(Value::Map);
            }
            Type::Tuple(types) => {
                let items = types
                    .iter()
                    .enumerate()
                    .map(|(index, ty)| self.stand_in(ty, &Value::Unknown, &at.index(index)));
                return items.collect::<Result<_, _>>().map(Value::List);
            }
            Type::Any | Type::List(_) | Type::Set(_) | Type::Map(_) => {
                return Err(Stuck { path: at.clone(), ty: ty.to_string() });
            }
        };
        self.note(&stand_in);
        Ok(stand_in)
    }

    /// Whether anything stands in.
    #[must_use]
    pub fn is_speculative(&self) -> bool {
        self.stood_in
    }

    /// Whether a value may come from a stand-in.
    #[must_use]
    pub fn taints(&self, value: &Value) -> bool {
        let holds = |text: &str| self.texts.iter().any(|stand_in| text.contains(stand_in.as_str()));
        match value {
            Value::String(text) => holds(text),
            Value::Int(number) => self.texts.contains(number.to_string().as_str()),
            Value::Float(number) => self.texts.contains(number.to_string().as_str()),
            Value::Bool(_) => self.bools,
            Value::List(items) => items.iter().any(|item| self.taints(item)),
            Value::Map(map) => map.iter().any(|(key, item)| holds(key) || self.taints(item)),
            _ => false,
        }
    }

    /// Whether a stand-in has become the key of an instance: then which resources there are is not known.
    #[must_use]
    pub fn is_key_in(&self, address: &str) -> bool {
        // A short one that the plan gives may be a part of any key.
        let is_part =
            |key: &str, text: &SmolStr| key == text || (text.len() >= TELLING && key.contains(text.as_str()));
        text_keys(address).iter().any(|key| self.texts.iter().any(|text| is_part(key, text)))
    }

    /// A value of a speculative plan as people may see it: what holds a stand-in is not known.
    #[must_use]
    pub fn veiled(&self, value: &Value) -> Value {
        match value {
            Value::List(items) => Value::List(items.iter().map(|item| self.veiled(item)).collect()),
            Value::Map(map) => {
                Value::Map(map.iter().map(|(key, item)| (key.clone(), self.veiled(item))).collect())
            }
            // A bool is as good as any other: only text and numbers show where they come from.
            Value::Bool(_) => value.clone(),
            value if self.taints(value) => Value::Unknown,
            value => value.clone(),
        }
    }

    /// The outputs of a speculative plan as far as they may be told: a leaf that is as the state has it, and that holds no
    /// stand-in. Everything else is not known.
    #[must_use]
    pub fn trusted(&self, planned: &Value, state: Option<&Value>) -> Value {
        let stands_in = |key: &SmolStr| self.taints(&Value::String(key.clone()));
        match (planned, state) {
            // Which keys there are is not known.
            (Value::Map(planned), _) if planned.keys().any(stands_in) => Value::Unknown,
            (Value::Map(planned), Some(Value::Map(state))) => Value::Map(
                planned.iter().map(|(key, item)| (key.clone(), self.trusted(item, state.get(key)))).collect(),
            ),
            (Value::List(planned), Some(Value::List(state))) if planned.len() == state.len() => Value::List(
                planned.iter().zip(state).map(|(item, state)| self.trusted(item, Some(state))).collect(),
            ),
            // The keys are known, whatever stands under them.
            (Value::Map(planned), _) => Value::Map(
                planned.iter().map(|(key, item)| (key.clone(), self.trusted(item, None))).collect(),
            ),
            (planned, Some(state)) if planned == state && !self.taints(planned) => planned.clone(),
            _ => Value::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ty: &str, value: Value, given: &[(&str, Value)]) -> Result<Filled, Stuck> {
        let ty = Type::parse(ty).expect("a type");
        let given: Map = given.iter().map(|(key, value)| (SmolStr::new(key), value.clone())).collect();
        let vars: Map = [(SmolStr::new("v"), value)].into_iter().collect();
        Placeholders::new(&given).fill(&vars, |_| Some(&ty))
    }

    #[test]
    fn each_type_has_its_stand_in_and_shapes_have_none() {
        let object = fill("object({ a = string, n = number, o = optional(string) })", Value::Unknown, &[])
            .expect("filled");
        let expected = Value::map([("a", Value::from(TEXT)), ("n", Value::Int(NUMBER))]);
        assert_eq!(object.vars.get("v"), Some(&expected));
        for ty in ["list(string)", "map(string)", "set(number)", "any"] {
            let stuck = fill(ty, Value::Unknown, &[]).expect_err(ty);
            assert_eq!((stuck.path.to_string().as_str(), stuck.ty.as_str()), ("v", ty));
        }
        assert!(!fill("string", "known".into(), &[]).expect("filled").is_speculative());
        for (ty, given) in
            [("list(string)", Value::List(vec![])), ("string", "".into()), ("any", Value::Null)]
        {
            let filled = fill(ty, Value::Unknown, &[("v", given)]).expect("filled");
            assert!(filled.is_speculative(), "{ty}: what leaves no text stands in all the same");
        }
        assert!(fill("object({})", Value::Unknown, &[]).expect("filled").is_speculative());
    }

    #[test]
    fn a_stand_in_is_no_key() {
        let filled = fill("string", Value::Unknown, &[]).expect("filled");
        assert!(filled.is_key_in("module.m[\"a-clawd-placeholder\"].a.b[0]"));
        assert!(!filled.is_key_in("a.clawd-placeholder[\"x\"]"));
        let given = fill("string", Value::Unknown, &[("v", "h".into())]).expect("filled");
        assert!(given.is_key_in("a.b[\"h\"]") && !given.is_key_in("a.b[\"host\"]"));
    }

    #[test]
    fn the_plans_own_stand_ins_win() {
        let hosts = Value::map([("a", Value::map([("ami", Value::Unknown), ("zone", "z".into())]))]);
        let filled = fill(
            "map(object({ ami = string, zone = string }))",
            hosts,
            &[("v.*.ami", "ami-00000000".into())],
        )
        .expect("filled");
        let expected =
            Value::map([("a", Value::map([("ami", Value::from("ami-00000000")), ("zone", "z".into())]))]);
        assert_eq!(filled.vars.get("v"), Some(&expected));
        assert!(filled.taints(&"id of ami-00000000".into()) && !filled.taints(&"z".into()));
        let whole = fill("map(string)", Value::Unknown, &[("v", Value::map([("k", Value::from("x"))]))])
            .expect("filled");
        assert!(whole.taints(&"x".into()));
    }

    #[test]
    fn only_what_is_as_before_and_free_of_stand_ins_is_trusted() {
        let filled = fill("string", Value::Unknown, &[]).expect("filled");
        let state = Value::map([("same", Value::from("a")), ("other", "b".into()), ("held", TEXT.into())]);
        let planned = Value::map([
            ("same", Value::from("a")),
            ("other", "c".into()),
            ("held", TEXT.into()),
            ("fresh", "d".into()),
        ]);
        let trusted = filled.trusted(&planned, Some(&state));
        let expected = Value::map([
            ("same", Value::from("a")),
            ("other", Value::Unknown),
            ("held", Value::Unknown),
            ("fresh", Value::Unknown),
        ]);
        assert_eq!(trusted, expected);
        let keyed = Value::map([("ids", Value::map([(TEXT, Value::from("i-1"))]))]);
        let state = Value::map([("ids", Value::map([("real", Value::from("i-1"))]))]);
        assert_eq!(filled.trusted(&keyed, Some(&state)), Value::map([("ids", Value::Unknown)]));
        let bools = fill("bool", Value::Unknown, &[]).expect("filled");
        assert_eq!(bools.trusted(&Value::Bool(true), Some(&Value::Bool(true))), Value::Unknown);
    }
}

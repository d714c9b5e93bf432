//! One scenario, many runs: every seed with every combination of varied values.

use serde_json::Value;

/// A place in a scenario and the values that it takes in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Vary {
    /// Like `rounds.0.k_of_n` or `network.default.latency_us`.
    pub path: String,
    pub values: Vec<Value>,
}

/// Why a scenario cannot be varied so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaryError {
    #[error("{0:?} is not PATH=VALUE,VALUE: like rounds.0.k_of_n=5,8")]
    Form(String),
    #[error("{path}: there is no {part:?} in the scenario")]
    Place { path: String, part: String },
}

impl std::str::FromStr for Vary {
    type Err = VaryError;

    fn from_str(text: &str) -> Result<Self, VaryError> {
        let form = || VaryError::Form(text.chars().take(120).collect());
        let (path, values) = text.split_once('=').ok_or_else(form)?;
        if path.is_empty() || values.is_empty() {
            return Err(form());
        }
        let value = |word: &str| {
            serde_json::from_str(word).unwrap_or_else(|_| Value::String(word.to_owned()))
        };
        Ok(Self { path: path.to_owned(), values: values.split(',').map(value).collect() })
    }
}

/// Sets one place of a scenario. Its parents must be there; the last part may be new.
pub fn set(scenario: &mut Value, path: &str, value: Value) -> Result<(), VaryError> {
    let missing = |part: &str| VaryError::Place { path: path.to_owned(), part: part.to_owned() };
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = scenario;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        place = child(place, part).ok_or_else(|| missing(part))?;
    }
    if let Value::Object(fields) = place {
        fields.insert(last.to_owned(), value);
        return Ok(());
    }
    *child(place, last).ok_or_else(|| missing(last))? = value;
    Ok(())
}

fn child<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match place {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(entries) => entries.get_mut(part.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Every combination of one value each, the last varying fastest.
pub fn combinations(varies: &[Vary]) -> Vec<Vec<(String, Value)>> {
    let mut all = vec![vec![]];
    for vary in varies {
        all = all
            .into_iter()
            .flat_map(|chosen: Vec<(String, Value)>| {
                vary.values.iter().map(move |value| {
                    let mut more = chosen.clone();
                    more.push((vary.path.clone(), value.clone()));
                    more
                })
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_and_put_in_their_place() {
        let vary: Vary = "rounds.0.k_of_n=5,8".parse().unwrap();
        assert_eq!(vary.values, [json!(5), json!(8)]);
        let mut scenario = json!({"rounds": [{"id": "r"}]});
        set(&mut scenario, &vary.path, json!(8)).unwrap();
        assert_eq!(scenario, json!({"rounds": [{"id": "r", "k_of_n": 8}]}));
        for path in ["rounds.1.k", "round.0.k", "rounds.x.k", "rounds.0.id.k"] {
            assert!(set(&mut scenario, path, json!(1)).is_err(), "{path}");
        }
        for text in ["", "a", "a=", "=1"] {
            assert!(text.parse::<Vary>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_combination_comes_once() {
        let varies: Vec<Vary> = ["a=1,2", "b=x,y,z"].map(|text| text.parse().unwrap()).into();
        let all = combinations(&varies);
        assert_eq!(all.len(), 6);
        assert_eq!(all[1], [("a".to_owned(), json!(1)), ("b".to_owned(), json!("y"))]);
        assert_eq!(combinations(&[]).len(), 1);
    }
}

//! Gradients against finite differences, for every network.

use super::*;

/// Kind, features, classes.
const KINDS: [(Kind, usize, usize); 8] = [
    (Kind::Linear, 5, 1),
    (Kind::Softmax, 5, 3),
    (Kind::Mlp { hidden: 7 }, 5, 4),
    (Kind::Mlp { hidden: 1 }, 5, 2),
    (Kind::Cnn { channels: 3 }, 64, 4),
    (Kind::Cnn { channels: 1 }, 16, 2),
    (Kind::Bigram, 1, 6),
    (Kind::Gru { hidden: 5 }, 4, 6),
];

/// Each analytic derivative is within 1e-6 of the central difference of the loss.
#[test]
fn gradients_match_finite_differences() {
    for (kind, features, classes) in KINDS {
        let network = Network::new(kind, features, classes).unwrap();
        let (parameters, examples) = somewhere(&network);
        let rows: Vec<usize> = (0..examples.len()).collect();
        let mut gradient = vec![0.0; network.len()];
        network.add_gradient(&parameters, &examples, &rows, &mut gradient);
        assert!(gradient.iter().any(|g| g.abs() > 0.01), "{kind} has no gradient to check");
        for index in 0..parameters.len() {
            let shifted = |by| {
                let mut parameters = parameters.clone();
                parameters[index] += by;
                network.score(&parameters, &examples).loss * 9.0
            };
            let step = 1e-5;
            let slope = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!(
                (slope - gradient[index]).abs() < 1e-6 * (1.0 + slope.abs()),
                "{kind}, parameter {index}: slope {slope}, gradient {}",
                gradient[index]
            );
        }
    }
}

/// The step follows the gradient of `loss + l2 / 2 * |w|^2` with biases left out of the penalty.
#[test]
fn a_step_descends_the_penalised_loss() {
    for (kind, features, classes) in KINDS {
        let network = Network::new(kind, features, classes).unwrap();
        let (mut parameters, _) = somewhere(&network);
        let before = parameters.clone();
        let gradient = vec![6.0; network.len()];
        network.descend(&mut parameters, &gradient, 3, (0.5, 0.25));
        let mut start = 0;
        for slot in network.slots() {
            for index in start..start + slot.len() {
                let penalty = if slot.role == Role::Weight { 0.25 * before[index] } else { 0.0 };
                let expected = before[index] - 0.5 * (6.0 / 3.0 + penalty);
                assert!((parameters[index] - expected).abs() < 1e-12, "{kind} {}", slot.name);
            }
            start += slot.len();
        }
    }
}

#[test]
fn labels_that_are_no_class_are_refused_with_their_line() {
    let network = Network::new(Kind::Softmax, 1, 3).unwrap();
    for label in ["3", "-1", "0.5", "1e300"] {
        let mut data = Dataset::default();
        data.append("d.csv", format!("1,0\n1,{label}\n").as_bytes()).unwrap();
        let said = Examples::prepare(&network, &data, &[0, 1], 1.0).unwrap_err().to_string();
        assert!(said.starts_with("d.csv, line 2: label "), "{said}");
        assert!(said.ends_with("the model has 0 to 2"), "{said}");
    }
}

#[test]
fn values_that_are_no_token_are_refused_with_their_line() {
    let network = Network::new(Kind::Gru { hidden: 2 }, 2, 3).unwrap();
    for token in ["3", "-1", "0.5"] {
        let mut data = Dataset::default();
        data.append("d.csv", format!("1,0,2\n1,{token},0\n").as_bytes()).unwrap();
        let said = Examples::prepare(&network, &data, &[0, 1], 1.0).unwrap_err().to_string();
        assert_eq!(said, format!("d.csv, line 2: {token} is not a token; the model has 0 to 2"));
    }
}

#[test]
fn an_image_has_to_be_a_square_that_can_be_pooled_twice() {
    for features in [0, 4, 36, 63] {
        let said = Network::new(Kind::Cnn { channels: 1 }, features, 2).unwrap_err().to_string();
        assert!(said.contains("multiple of 4"), "{said}");
    }
}

/// Random parameters and nine random rows, from a fixed seed.
fn somewhere(network: &Network) -> (Vec<f64>, Examples) {
    let mut random = Random::new(42);
    let parameters = (0..network.len()).map(|_| random.symmetric(1.0)).collect();
    let mut data = Dataset::default();
    for row in 0..9 {
        let value = |random: &mut Random| match network.kind.reads_tokens() {
            true => ((random.symmetric(0.5) + 0.5) * network.classes as f64).floor(),
            false => random.symmetric(2.0),
        };
        let x: Vec<String> =
            (0..network.features).map(|_| value(&mut random).to_string()).collect();
        let line = format!("{},{}", x.join(","), row % network.classes);
        data.append("random", line.as_bytes()).unwrap();
    }
    let rows: Vec<usize> = (0..9).collect();
    (parameters, Examples::prepare(network, &data, &rows, 1.0).unwrap())
}

//! The kinds of networks, by name and in words.

use std::fmt;

/// Which model, with what the data cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Least squares: tensors `w [features]`, `b` a scalar; the label is any number.
    Linear,
    /// Softmax regression: tensors `w [features, classes]`, `b [classes]`; the label is a class.
    Softmax,
    /// One hidden layer of rectified linear units before a softmax.
    Mlp { hidden: usize },
    /// Two convolutions with pools before a softmax; a row is a square image.
    Cnn { channels: usize },
    /// The next token from the last one; a row is tokens, and so is the label.
    Bigram,
    /// The next token from all before it, by a gated recurrent unit.
    Gru { hidden: usize },
}

impl Kind {
    /// The tensors of this kind, in words.
    pub fn shapes(self) -> String {
        match self {
            Self::Linear => "w [features], b []".to_owned(),
            Self::Softmax => "w [features, classes], b [classes]".to_owned(),
            Self::Mlp { hidden } => format!(
                "w1 [features, {hidden}], b1 [{hidden}], w2 [{hidden}, classes], b2 [classes]"
            ),
            Self::Cnn { channels } => format!(
                "conv1.w [3, 3, 1, {channels}], conv1.b [{channels}], \
                 conv2.w [3, 3, {channels}, {0}], conv2.b [{0}], \
                 dense.w [features / 16 * {0}, classes], dense.b [classes]",
                2 * channels
            ),
            Self::Bigram => "w [classes, classes], b [classes]".to_owned(),
            Self::Gru { hidden } => format!(
                "gru.wz, gru.wr and gru.wn [classes, {hidden}], gru.uz, gru.ur and gru.uq \
                 [{hidden}, {hidden}], gru.bz, gru.br, gru.bn and gru.cq [{hidden}], \
                 out.w [{hidden}, classes], out.b [classes]"
            ),
        }
    }

    pub(crate) const fn classes_taken(self) -> &'static str {
        match self {
            Self::Linear => "exactly 1 output",
            Self::Softmax
            | Self::Mlp { .. }
            | Self::Cnn { .. }
            | Self::Bigram
            | Self::Gru { .. } => "at least 2 classes",
        }
    }

    pub(crate) const fn features_taken(self) -> &'static str {
        match self {
            Self::Cnn { .. } => "the pixels of a square whose side is a multiple of 4",
            Self::Linear | Self::Softmax | Self::Mlp { .. } | Self::Bigram | Self::Gru { .. } => {
                "at least 1 feature"
            }
        }
    }

    /// Whether the features of a row are tokens: whole numbers below the number of classes.
    pub(crate) const fn reads_tokens(self) -> bool {
        match self {
            Self::Bigram | Self::Gru { .. } => true,
            Self::Linear | Self::Softmax | Self::Mlp { .. } | Self::Cnn { .. } => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("model \"linear\""),
            Self::Softmax => f.write_str("model \"softmax\""),
            Self::Mlp { hidden } => write!(f, "model \"mlp\" with {hidden} hidden units"),
            Self::Cnn { channels } => write!(f, "model \"cnn\" with {channels} channels"),
            Self::Bigram => f.write_str("model \"bigram\""),
            Self::Gru { hidden } => write!(f, "model \"gru\" with {hidden} hidden units"),
        }
    }
}

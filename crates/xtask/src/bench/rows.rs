//! The rows of `bench cache-hit`: what is asked for, and how a command line names it.

/// How large an answer is. Its path names it, and the origin and the floor know it by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
}

impl Size {
    pub(crate) const SMALL: Self = Self { name: "1KiB", bytes: 1 << 10 };
    pub(crate) const ALL: [Self; 3] =
        [Self::SMALL, Self { name: "64KiB", bytes: 64 << 10 }, Self { name: "1MiB", bytes: 1 << 20 }];

    /// What is asked for.
    pub(crate) fn path(self) -> String {
        format!("/{}", self.name)
    }

    /// The body that every side must answer with.
    pub(crate) fn body(self) -> String {
        "tenfold ".repeat(self.bytes / 8)
    }
}

/// How a request for one of many keys begins; its number in decimal follows.
pub(crate) const KEY_REQUEST: &[u8] = b"GET /key-";

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// One answer of this size, beside the peers.
    Size(Size),
    /// One key beside a million.
    Keys,
    /// One worker beside two.
    Workers,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        let sizes = Size::ALL.into_iter().map(Self::Size);
        sizes.chain([Self::Keys, Self::Workers]).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Size(size) => size.name,
            Self::Keys => "keys",
            Self::Workers => "workers",
        }
    }

    /// The rows that `names` names, separated by commas; else what is wrong.
    pub(crate) fn parse(names: &str) -> Result<Vec<Self>, String> {
        let find = |name: &str| {
            let known = Self::all();
            let row = known.iter().copied().find(|row| row.name() == name);
            row.ok_or_else(|| {
                let names: Vec<_> = known.iter().map(|row| row.name()).collect();
                format!("no row `{name}`; there are {}", names.join(", "))
            })
        };
        names.split(',').map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name() {
        assert_eq!(Row::parse("keys,1KiB"), Ok(vec![Row::Keys, Row::Size(Size::SMALL)]));
        let error = Row::parse("keys,2KiB").unwrap_err();
        assert!(error.contains("`2KiB`") && error.contains("1KiB, 64KiB, 1MiB, keys, workers"), "{error}");
    }

    #[test]
    fn a_body_is_as_long_as_its_size_says() {
        for size in Size::ALL {
            assert_eq!(size.body().len(), size.bytes);
        }
    }
}

//! The `options` parameter: command-line switches for the server, of which only settings make sense through a pooler.
//!
//! **Intuition.** `options=-c search_path=app -c statement_timeout=5s` is how tools without another way set settings at
//! login. To follow such a session from server to server we must know what it set.
//!
//! **Mechanism.** Words are split at white space, a backslash keeping the next byte; then `-c name=value`,
//! `-cname=value` and `--name=value` are read, `-` in a name standing for `_`.
//!
//! **Failure.** Any other switch is an error with PostgreSQL's code; the client gets it at login.
//!
//! Source: `pg_split_opts` in `postinit.c`, `process_postgres_switches` in `postgres.c`, `ParseLongOption` in `guc.c`.

use std::fmt;

use crate::Error;

/// A setting: name and value, both without escapes.
pub type Setting = (Vec<u8>, Vec<u8>);

/// A switch that is no setting, in PostgreSQL's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// [`Error::OptionUnknown`] or [`Error::OptionWithoutValue`].
    pub error: Error,
    /// What stood there, without escapes.
    pub word: Vec<u8>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = String::from_utf8_lossy(&self.word);
        match self.error {
            Error::OptionWithoutValue => write!(f, "{word} requires a value"),
            error => write!(f, "{error}: {word}"),
        }
    }
}

/// Reads the settings in `options`, in order; of a name given twice the last counts. Bounded by the startup packet it
/// came in.
///
/// ```
/// use tenfold_pgwire::startup::options::settings;
///
/// let found = settings(br"-c search_path=app --work-mem=1MB -cTimeZone=Europe/B\ C")?;
/// assert_eq!(found[1], (b"work_mem".to_vec(), b"1MB".to_vec()));
/// assert_eq!(found[2], (b"TimeZone".to_vec(), b"Europe/B C".to_vec()));
/// # Ok::<(), tenfold_pgwire::startup::options::Refused>(())
/// ```
///
/// # Errors
/// [`Refused`], with the first such word.
pub fn settings(options: &[u8]) -> Result<Vec<Setting>, Refused> {
    let mut words = split(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if word == b"-c" {
            words.next()
        } else {
            word.strip_prefix(b"-c").or_else(|| word.strip_prefix(b"--")).map(<[u8]>::to_vec)
        };
        let Some(setting) = setting else { return Err(Refused { error: Error::OptionUnknown, word }) };
        let switch: &[u8] = if word.starts_with(b"--") { b"--" } else { b"-c " };
        settings.push(assignment(switch, &setting)?);
    }
    Ok(settings)
}

fn assignment(switch: &[u8], setting: &[u8]) -> Result<Setting, Refused> {
    let refused = |error| Refused { error, word: [switch, setting].concat() };
    let at = memchr::memchr(b'=', setting).ok_or_else(|| refused(Error::OptionWithoutValue))?;
    let (name, value) = setting.split_at(at);
    if name.is_empty() {
        return Err(refused(Error::OptionUnknown));
    }
    let name = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect();
    Ok((name, value.get(1..).unwrap_or_default().to_vec()))
}

/// Splits at white space as C's `isspace` knows it; a backslash takes the next byte as it is, and vanishes.
fn split(options: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => words.extend(word.take()),
            b'\\' => {
                let word = word.get_or_insert_default();
                word.extend(bytes.next());
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

/// Appends one setting to an `options` text, escaped so that [`settings`] and PostgreSQL read it back as it is.
pub fn append(options: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !options.is_empty() {
        options.push(b' ');
    }
    options.extend_from_slice(b"-c ");
    for &byte in name.iter().chain(b"=").chain(value) {
        if matches!(byte, b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(options: &str, expected: &[(&str, &str)]) {
        let found = settings(options.as_bytes()).map(|found| {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ASCII");
            found.into_iter().map(|(name, value)| (text(name), text(value))).collect::<Vec<_>>()
        });
        let expected = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(found, Ok(expected), "{options}");
    }

    #[test]
    fn three_spellings_of_a_setting_are_read() {
        check("", &[]);
        check("  \t\n", &[]);
        check("-c a=b", &[("a", "b")]);
        check("-ca=b", &[("a", "b")]);
        check("--a=b", &[("a", "b")]);
        check("--a-b=c-d", &[("a_b", "c-d")]);
        check("-c a= --b==", &[("a", ""), ("b", "=")]);
        check("-c   geqo=off\t-c\nx.y=1", &[("geqo", "off"), ("x.y", "1")]);
    }

    #[test]
    fn a_backslash_keeps_the_next_byte() {
        check(r"-c search_path=a,\ b", &[("search_path", "a, b")]);
        check(r"-c a=\\b\c\\", &[("a", r"\bc\")]);
        check(r"-c a=b\", &[("a", "b")]);
    }

    #[test]
    fn other_switches_are_refused() {
        fn check(options: &str, expected: &str) {
            let refused = settings(options.as_bytes()).unwrap_err();
            assert_eq!(refused.to_string(), expected, "{options}");
        }
        for (options, word) in
            [("-c a", "-c a"), ("--a", "--a"), ("-ca", "-c a"), ("-c a -c b=c", "-c a"), (r"--a\ b", "--a b")]
        {
            check(options, &format!("{word} requires a value"));
        }
        for word in ["-N", "a=b", "-", "-c =b", "--=b", "", "-Ca=b", "-c"] {
            let options = if word.is_empty() { r"\" } else { word };
            check(options, &format!("invalid command-line argument for server process: {word}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_appended_reads_back(
            pairs in prop::collection::vec(("[a-z_.]{1,12}", prop::collection::vec(1_u8.., 0..30)), 0..6),
        ) {
            let mut options = Vec::new();
            let pairs: Vec<Setting> = pairs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            pairs.iter().for_each(|(name, value)| append(&mut options, name, value));
            prop_assert_eq!(settings(&options), Ok(pairs));
        }

        #[test]
        fn no_bytes_panic(options: Vec<u8>) {
            let _ = settings(&options);
        }
    }
}

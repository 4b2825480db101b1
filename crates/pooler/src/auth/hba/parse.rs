//! Reading the text of `pg_hba.conf`.
//!
//! **Mechanism.** Lines, joined where one ends in a backslash; of each its fields, which are lists of items between
//! blanks; then fields to a rule. An item in quotes is a name whatever it spells: `"all"` is a database called all.
//!
//! **Failure.** Reading goes on after a mistake, so that all are reported at once, up to [`MISTAKES_MAX`].

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Connection, DatabaseItem, HbaError, RULES_MAX, Rule, UserItem};
use crate::config::AuthMethod;

/// Mistakes reported at once.
const MISTAKES_MAX: usize = 100;

/// One item of a list: `app` in `shop, app`.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    text: String,
    quoted: bool,
}

/// A list of items; most have one.
type Field = Vec<Item>;

pub(super) fn rules(text: &str) -> Result<Vec<Rule>, Vec<HbaError>> {
    let (mut rules, mut mistakes) = (Vec::new(), Vec::new());
    for (line, text) in logical_lines(text) {
        match fields(&text).and_then(|fields| rule(line, &fields)) {
            Ok(Some(_)) if rules.len() == RULES_MAX => {
                mistakes.push(HbaError { line, message: format!("more than {RULES_MAX} rules") });
                break;
            }
            Ok(Some(rule)) => rules.push(rule),
            Ok(None) => {}
            Err(message) => mistakes.push(HbaError { line, message }),
        }
        if mistakes.len() == MISTAKES_MAX {
            break;
        }
    }
    if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
}

/// Lines with the number of their first part, continued ones joined.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut lines: Vec<(u32, String)> = Vec::new();
    let mut continued = false;
    for (number, part) in (1_u32..).zip(text.lines()) {
        let (part, continues) = match part.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (part, false),
        };
        match lines.last_mut() {
            Some((_, line)) if continued => line.push_str(part),
            _ => lines.push((number, part.to_owned())),
        }
        continued = continues;
    }
    lines
}

/// Splits a line into fields. A comma, also with blanks after it, continues the list.
fn fields(line: &str) -> Result<Vec<Field>, String> {
    let mut fields: Vec<Field> = Vec::new();
    let mut chars = line.chars().peekable();
    let mut list_goes_on = false;
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none_or(|&c| c == '#') {
            return Ok(fields);
        }
        let item = item(&mut chars)?;
        match fields.last_mut() {
            Some(field) if list_goes_on => field.push(item),
            _ => fields.push(vec![item]),
        }
        list_goes_on = chars.next_if_eq(&',').is_some();
    }
}

/// Reads up to a blank, comma or comment; `""` inside quotes is one quote.
fn item(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Item, String> {
    let mut text = String::new();
    let quoted = chars.peek() == Some(&'"');
    let mut inside = false;
    while let Some(&c) = chars.peek() {
        if !inside && (c.is_whitespace() || c == ',' || c == '#') {
            break;
        }
        chars.next();
        if c != '"' {
            text.push(c);
        } else if inside && chars.next_if_eq(&'"').is_some() {
            text.push('"');
        } else {
            inside = !inside;
        }
    }
    if inside {
        return Err("a quote is not closed".into());
    }
    if text.is_empty() && !quoted {
        return Err("a comma without a name before it".into());
    }
    Ok(Item { text, quoted })
}

fn rule(line: u32, fields: &[Field]) -> Result<Option<Rule>, String> {
    let Some((first, rest)) = fields.split_first() else { return Ok(None) };
    let connection = connection(single(first, "connection type")?)?;
    let [databases, users, rest @ ..] = rest else {
        return Err("the line ends before the database and the user".into());
    };
    let databases = databases.iter().map(database).collect::<Result<_, _>>()?;
    let users = users.iter().map(user).collect::<Result<_, _>>()?;
    let (network, rest) = match connection {
        Connection::Local => (None, rest),
        _ => network(rest)?,
    };
    let (method, options) = rest.split_first().ok_or("the line ends before the method")?;
    let method = method_of(single(method, "method")?, connection)?;
    if let Some(option) = options.first().and_then(|field| field.first()) {
        return Err(format!("the option \"{}\" is not supported", option.text));
    }
    Ok(Some(Rule { line, connection, databases, users, network, method }))
}

fn single<'a>(field: &'a Field, what: &str) -> Result<&'a str, String> {
    match field.as_slice() {
        [item] => Ok(&item.text),
        _ => Err(format!("a list where one {what} belongs")),
    }
}

fn connection(word: &str) -> Result<Connection, String> {
    match word {
        "local" => Ok(Connection::Local),
        "host" => Ok(Connection::Host),
        "hostssl" => Ok(Connection::HostSsl),
        "hostnossl" => Ok(Connection::HostNoSsl),
        "hostgssenc" | "hostnogssenc" => Err(format!("{word} is not supported: there is no GSS encryption")),
        "include" | "include_if_exists" | "include_dir" => {
            Err(format!("{word} is not supported: write all rules into one file"))
        }
        _ => Err(format!("unknown connection type \"{word}\"; known: local, host, hostssl, hostnossl")),
    }
}

fn database(item: &Item) -> Result<DatabaseItem, String> {
    if item.quoted {
        return Ok(DatabaseItem::Name(item.text.clone()));
    }
    match item.text.as_str() {
        "all" => Ok(DatabaseItem::All),
        "sameuser" => Ok(DatabaseItem::SameUser),
        "replication" => Ok(DatabaseItem::Replication),
        "samerole" | "samegroup" => Err(format!("{} is not supported: groups are not known here", item.text)),
        name => plain_name(name).map(DatabaseItem::Name),
    }
}

fn user(item: &Item) -> Result<UserItem, String> {
    match item.text.as_str() {
        name if item.quoted => Ok(UserItem::Name(name.to_owned())),
        "all" => Ok(UserItem::All),
        name if name.starts_with('+') => {
            Err(format!("\"{name}\" is not supported: groups are not known here; list the users"))
        }
        name => plain_name(name).map(UserItem::Name),
    }
}

fn plain_name(name: &str) -> Result<String, String> {
    match name.chars().next() {
        Some('@') => Err(format!("\"{name}\" is not supported: names from other files")),
        Some('/') => Err(format!("\"{name}\" is not supported: regular expressions")),
        _ => Ok(name.to_owned()),
    }
}

/// Reads `10.0.0.0/8`, `10.0.0.0 255.0.0.0` or `all`; gives what follows, too.
fn network(fields: &[Field]) -> Result<(Option<IpNet>, &[Field]), String> {
    let (field, rest) = fields.split_first().ok_or("the line ends before the address")?;
    let text = single(field, "address")?;
    match text {
        "all" => return Ok((None, rest)),
        "samehost" | "samenet" => {
            return Err(format!("{text} is not supported: give the addresses themselves"));
        }
        _ => {}
    }
    if text.contains('/') {
        let network: IpNet =
            text.parse().map_err(|_| format!("\"{text}\" is not an address and a prefix"))?;
        return Ok((Some(network.trunc()), rest));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!("\"{text}\" is not an address; names of hosts are not supported"));
    };
    let (mask, rest) =
        rest.split_first().ok_or_else(|| format!("{address} has neither a prefix nor a mask"))?;
    let mask = single(mask, "mask")?;
    let network = mask.parse().ok().and_then(|mask| IpNet::with_netmask(address, mask).ok());
    let network =
        network.ok_or_else(|| format!("{address} has neither a prefix nor a mask, but \"{mask}\""))?;
    Ok((Some(network.trunc()), rest))
}

fn method_of(word: &str, connection: Connection) -> Result<Option<AuthMethod>, String> {
    match (word, connection) {
        ("trust", _) => Ok(Some(AuthMethod::Trust)),
        ("reject", _) => Ok(None),
        ("password", _) => Ok(Some(AuthMethod::Password)),
        ("md5", _) => Ok(Some(AuthMethod::Md5)),
        ("scram-sha-256", _) => Ok(Some(AuthMethod::ScramSha256)),
        ("cert", Connection::HostSsl) => Ok(Some(AuthMethod::Cert)),
        ("cert", _) => Err("cert needs hostssl".into()),
        ("peer", Connection::Local) => Ok(Some(AuthMethod::Peer)),
        ("peer", _) => Err("peer needs local".into()),
        ("ident" | "gss" | "sspi" | "pam" | "ldap" | "radius" | "bsd" | "oauth", _) => {
            Err(format!("the method {word} is not supported"))
        }
        _ => Err(format!(
            "unknown method \"{word}\"; known: trust, reject, password, md5, scram-sha-256, cert, peer"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: &str) {
        let mistakes = rules(line).unwrap_err();
        assert_eq!((mistakes.len(), mistakes[0].line), (1, 1), "{line}");
        assert!(mistakes[0].message.contains(expected), "{line}: {}", mistakes[0].message);
    }

    #[test]
    fn mistakes_are_named() {
        check("hots all all all trust", "unknown connection type \"hots\"");
        check("host", "before the database");
        check("host all", "before the database");
        check("host all all", "before the address");
        check("host all all all", "before the method");
        check("local all all", "before the method");
        check("host all all 10.0.0.0 trust", "neither a prefix nor a mask, but \"trust\"");
        check("host all all 10.0.0.0", "neither a prefix nor a mask");
        check("host all all 10.0.0.0 255.0.255.0 trust", "neither a prefix nor a mask");
        check("host all all 10.0.0.0/33 trust", "not an address and a prefix");
        check("host all all db.example trust", "names of hosts are not supported");
        check("host all all samenet trust", "samenet is not supported");
        check("host all +staff all trust", "groups are not known here");
        check("host samerole all all trust", "samerole is not supported");
        check("host all @users all trust", "names from other files");
        check("host /^a all all trust", "regular expressions");
        check("host all all all ldap", "method ldap is not supported");
        check("host all all all none", "unknown method \"none\"");
        check("host all all all cert", "cert needs hostssl");
        check("hostssl all all all peer", "peer needs local");
        check("local all all peer map=m", "option \"map=m\" is not supported");
        check("local \"all all peer", "a quote is not closed");
        check("local , all peer", "a comma without a name");
        check("include more.conf", "include is not supported");
        check("local,host all all trust", "a list where one connection type belongs");
    }

    #[test]
    fn all_mistakes_come_at_once_with_their_lines() {
        let mistakes = rules("host\nlocal all all trust\nlocal all \\\n x bad\n\nlocal").unwrap_err();
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [1, 3, 6]);
        assert_eq!(mistakes[0].to_string(), "line 1: the line ends before the database and the user");
    }

    #[test]
    fn quotes_take_a_word_its_meaning() {
        let rules = rules(r#"local "all","sameuser",a"b c"#).unwrap_err();
        assert_eq!(rules[0].message, "a quote is not closed");
        let rules = super::rules(r#"local "all","say ""x""" "+staff" trust # comment"#).unwrap();
        let names = ["all", "say \"x\""].map(|name| DatabaseItem::Name(name.into()));
        assert_eq!(rules[0].databases, names);
        assert_eq!(rules[0].users, [UserItem::Name("+staff".into())]);
    }

    #[test]
    fn bits_behind_the_prefix_do_not_count() {
        let rules = rules("host all all 10.1.2.3/8 trust\nhost all all 10.1.2.3 255.0.0.0 trust").unwrap();
        assert_eq!(rules[0].network, rules[1].network);
        assert_eq!(rules[0].network.unwrap().to_string(), "10.0.0.0/8");
    }

    proptest! {
        #[test]
        fn any_text_is_rules_or_mistakes(text in "(host|local|hostssl|all|\"|,|#|\\\\|\n| |10\\.0\\.0\\.0/8|trust|.){0,60}") {
            match rules(&text) {
                Ok(rules) => prop_assert!(rules.len() <= text.lines().count()),
                Err(mistakes) => prop_assert!(!mistakes.is_empty()),
            }
        }
    }
}

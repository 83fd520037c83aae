//! What must not become public: the places in a file that look like a secret. `publish` scans every file before it copies one,
//! and one finding refuses the whole publish.
//!
//! Known formats are found by prefix, characters and length, other secrets by the name they are assigned to or by their place in
//! a URL. In doubt it is a finding: a false one costs an edit, a missed one a credential. Not found are placeholders, among them
//! the keys of AWS's documentation, which say EXAMPLE, and what is encoded, spread over lines, UTF-16, or plain words.
//!
//! A finding never holds any part of the secret. Time is linear in the content, whatever it is: how far a rule looks back or
//! ahead is bounded, or what it has looked at is passed.

mod tokens;

use std::sync::LazyLock;

use tokens::{
    ALNUM, BASE64, Charset, DOTTED, HEX, KEYS, PASSWORDS, PLACEHOLDERS, QUALIFIERS, SECRETS, STAND_INS,
    TOKENS, Token, UPPER, URL_SAFE, WORD,
};

/// A place in a file that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The stable name of the rule that found it.
    pub rule: &'static str,
    /// What it looks like, for people.
    pub what: &'static str,
}

/// How many bytes a rule looks ahead. A longer token is found by its start.
const AHEAD: usize = 256;

/// How many bytes of a value, and of a name, count.
const VALUE: usize = 128;
const NAME: usize = 40;

/// What a name says about its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Password,
    Other,
}

/// A stretch of the content that a rule found.
struct Span {
    start: usize,
    end: usize,
    rule: &'static str,
    what: &'static str,
    /// Whether its own form gives it away, not what stands around it.
    is_sure: bool,
}

impl Span {
    fn sure(start: usize, end: usize, (rule, what): (&'static str, &'static str)) -> Self {
        Self { start, end, rule, what, is_sure: true }
    }
}

/// The known formats by the first byte of their prefixes, and the bytes at which any rule begins.
struct Index {
    tokens: [Vec<(&'static str, &'static Token)>; 256],
    stops: [bool; 256],
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut tokens: [Vec<_>; 256] = std::array::from_fn(|_| Vec::new());
    for token in &TOKENS {
        for prefix in token.prefixes {
            tokens[usize::from(prefix.as_bytes()[0])].push((*prefix, token));
        }
    }
    let stops = std::array::from_fn(|byte| {
        !tokens[byte].is_empty() || b"-.:=\\%[".iter().any(|it| usize::from(*it) == byte)
    });
    Index { tokens, stops }
});

/// Scans a file's content, whatever it is. Bytes that are no UTF-8 count as one character for each broken sequence.
#[must_use]
pub fn scan(content: &[u8]) -> Vec<Finding> {
    let index = &*INDEX;
    let mut found = Vec::new();
    // Where the run of characters of a base64url text began that `at` is in, and where the last escape ended.
    let (mut at, mut run_start, mut escaped) = (0, 0, 0);
    while let Some(byte) = content.get(at) {
        if at == escaped {
            run_start = at;
        }
        if index.stops[usize::from(*byte)] {
            let sure = match byte {
                b'.' => jwt(content, run_start, at).or_else(|| discord_bot(content, run_start, at)),
                b':' => telegram_bot(content, at).or_else(|| nix_key(content, at)),
                b'-' => private_key(content, at),
                b'\\' | b'%' | b'[' => {
                    escaped = escaped.max(after_escape(content, at));
                    None
                }
                _ if at == escaped || !content[at - 1].is_ascii_alphanumeric() => {
                    known(&index.tokens[usize::from(*byte)], content, at)
                }
                _ => None,
            };
            if let Some(span) = sure {
                (at, run_start) = (span.end, span.end);
                add(&mut found, span);
                continue;
            }
            if matches!(byte, b':' | b'=') {
                let weak = url_password(content, at).or_else(|| assigned(content, at));
                if let Some(span) = weak {
                    add(&mut found, span);
                }
            }
        }
        at += 1;
        if !URL_SAFE(byte) {
            run_start = at;
        }
    }
    positions(content, &found)
}

/// Keeps one finding per place: what its form gives away goes before what its surroundings say.
fn add(found: &mut Vec<Span>, span: Span) {
    while span.is_sure && found.last().is_some_and(|last| !last.is_sure && last.end > span.start) {
        found.pop();
    }
    if found.last().is_none_or(|last| last.end <= span.start) {
        found.push(span);
    }
}

/// Lines and columns, counted from one finding to the next.
fn positions(content: &[u8], found: &[Span]) -> Vec<Finding> {
    let (mut line, mut column, mut counted) = (1, 1, 0);
    let place = |span: &Span| {
        let between = &content[counted..span.start];
        counted = span.start;
        line += between.iter().filter(|byte| **byte == b'\n').count();
        let rest = match between.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                column = 1;
                &between[end + 1..]
            }
            None => between,
        };
        column += rest
            .utf8_chunks()
            .map(|chunk| chunk.valid().chars().count() + usize::from(!chunk.invalid().is_empty()))
            .sum::<usize>();
        Finding { line, column, rule: span.rule, what: span.what }
    };
    found.iter().map(place).collect()
}

/// How many bytes at the start of a text are of a kind, up to `most`.
fn run(text: &[u8], most: usize, kind: impl Fn(&u8) -> bool) -> usize {
    text.iter().take(most).take_while(|byte| kind(byte)).count()
}

/// Where an escape of a string, a URL or a terminal ends, after which a token begins although a letter stands before it.
fn after_escape(content: &[u8], at: usize) -> usize {
    let text = &content[at..];
    let hex = |from: usize, count: usize| {
        let digits = text.get(from..from + count)?;
        digits.iter().all(HEX).then_some(from + count)
    };
    let length = match (text[0], text.get(1)) {
        (b'\\', Some(b'n' | b'r' | b't')) => Some(2),
        (b'\\', Some(b'x')) => hex(2, 2),
        (b'\\', Some(b'u')) => hex(2, 4),
        (b'%', _) => hex(1, 2),
        (b'[', _) => {
            let end = 1 + run(&text[1..], 12, |byte| byte.is_ascii_digit() || *byte == b';');
            (text.get(end) == Some(&b'm')).then_some(end + 1)
        }
        _ => None,
    };
    at + length.unwrap_or(0)
}

/// A known format that begins here.
fn known(tokens: &[(&'static str, &'static Token)], content: &[u8], at: usize) -> Option<Span> {
    tokens.iter().find_map(|(prefix, token)| {
        let text = content[at..].strip_prefix(prefix.as_bytes())?;
        let length = run(text, AHEAD, token.charset);
        if !(token.min..=token.max).contains(&length) || !is_random(&text[..length]) {
            return None;
        }
        let end = at + prefix.len() + run(text, usize::MAX, token.charset);
        Some(Span::sure(at, end, (token.rule, token.what)))
    })
}

/// A PEM block's first line. What follows it does not matter: a shortened key is better not published either.
fn private_key(content: &[u8], at: usize) -> Option<Span> {
    let text = content[at..].strip_prefix(b"-----BEGIN ")?;
    let label = &text[..run(text, NAME, |byte| UPPER(byte) || *byte == b' ')];
    let is_private =
        label.windows(11).any(|it| it == b"PRIVATE KEY") && text[label.len()..].starts_with(b"-----");
    let end = at + 11 + label.len() + 5;
    is_private.then(|| Span::sure(at, end, ("private-key", "a private key")))
}

/// A JSON Web Token around the dot after its header. Both header and claims begin with `{"`.
fn jwt(content: &[u8], run_start: usize, dot: usize) -> Option<Span> {
    let text = content[dot + 1..].strip_prefix(b"eyJ")?;
    let start = run_start + content[run_start..dot].windows(3).position(|it| it == b"eyJ")?;
    let claims = run(text, usize::MAX, URL_SAFE);
    let signature = run(text[claims..].strip_prefix(b".")?, usize::MAX, URL_SAFE);
    let end = dot + 4 + claims + 1 + signature;
    let is_token = dot - start >= 12 && claims >= 8 && signature >= 16;
    is_token.then(|| Span::sure(start, end, ("jwt", "a JSON Web Token")))
}

/// A Discord bot's token around its first dot. It begins with the bot's id, digits in base64.
fn discord_bot(content: &[u8], run_start: usize, dot: usize) -> Option<Span> {
    let (id, text) = (&content[run_start..dot], &content[dot + 1..]);
    if !(23..=28).contains(&id.len()) || !matches!(id[0], b'M' | b'N' | b'O') || !id.iter().all(ALNUM) {
        return None;
    }
    let secret = run(text.get(6..)?.strip_prefix(b".")?, AHEAD, URL_SAFE);
    let end = dot + 8 + secret;
    let is_token = run(text, 6, URL_SAFE) == 6 && (27..=45).contains(&secret);
    let is_token = is_token && is_random(&content[run_start..end]);
    is_token.then(|| Span::sure(run_start, end, ("discord-bot-token", "a Discord bot token")))
}

/// A Telegram bot's token around its colon.
fn telegram_bot(content: &[u8], colon: usize) -> Option<Span> {
    let digits = content[..colon].iter().rev().take(11).take_while(|byte| byte.is_ascii_digit()).count();
    let text = &content[colon + 1..];
    let length = run(text, 36, URL_SAFE);
    let is_token = (8..=10).contains(&digits) && length == 35 && is_random(&text[..length]);
    let rule = ("telegram-bot-token", "a Telegram bot token");
    is_token.then(|| Span::sure(colon - digits, colon + 36, rule))
}

/// The secret half of a key that signs Nix store paths, from the colon after its name: 64 bytes, where the public half has 32.
fn nix_key(content: &[u8], colon: usize) -> Option<Span> {
    let (before, text) = (&content[..colon], &content[colon + 1..]);
    let is_key = run(text, 87, BASE64) == 86 && text[86..].starts_with(b"==") && is_random(&text[..86]);
    let is_named = before.last().is_some_and(URL_SAFE) && !before.ends_with(b"sha512");
    let rule = ("nix-signing-key", "a key that signs Nix store paths");
    (is_key && is_named).then(|| Span::sure(colon + 1, colon + 89, rule))
}

/// The password of `scheme://user:password@host`, from the colon after the scheme.
fn url_password(content: &[u8], colon: usize) -> Option<Span> {
    let text = content[colon..].strip_prefix(b"://")?;
    let may = |byte: &u8| !byte.is_ascii_whitespace() && !b"/?#@\"'`<>\\".contains(byte);
    let user = run(text, VALUE, |byte| may(byte) && *byte != b':');
    let rest = text[user..].strip_prefix(b":")?;
    let (password, after) = rest.split_at(run(rest, AHEAD, may));
    let has_host = matches!(after, [b'@', host, ..] if !host.is_ascii_whitespace());
    if !has_host || password.len() < 3 || is_placeholder(password) || is_reference(password) {
        return None;
    }
    let name = password.iter().filter(|byte| **byte != b'_').map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    let is_variable = password.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    let is_stand_in = STAND_INS.iter().any(|it| it.as_bytes() == name)
        || is_variable && names_secret(&name).is_some()
        || distinct(password) == 1
        || password == "…".as_bytes();
    let start = colon + 3 + user + 1;
    let (rule, what) = ("url-password", "a password in a URL");
    (!is_stand_in).then_some(Span { start, end: start + password.len(), rule, what, is_sure: false })
}

/// A secret that is assigned to a name, from the `=` or `:` between them.
fn assigned(content: &[u8], at: usize) -> Option<Span> {
    let mut buffer = [0; NAME];
    let (name, before) = name_before(content, at, &mut buffer);
    let kind = names_secret(name)?;
    // Parts of an ARN or a key of a database, not a name and its value.
    if content[at] == b':' && before == Some(b':') {
        return None;
    }
    let (start, value) = value_after(content, at)?;
    let holds = |part: &[u8]| name.windows(part.len()).any(|it| it == part);
    let exactly = |length: usize, kind: fn(&u8) -> bool| run(&content[start..], length + 1, kind) == length;
    let is_aws = name.ends_with(b"secretaccesskey") || name.ends_with(b"secretkey");
    let is_cloudflare = holds(b"cloudflare") || holds(b"cfapi") || holds(b"cftoken");
    let (rule, what) = if is_aws && exactly(40, BASE64) && is_random(value) {
        ("aws-secret-access-key", "an AWS secret access key")
    } else if is_cloudflare && (exactly(40, URL_SAFE) || exactly(37, HEX)) && is_random(value) {
        ("cloudflare-token", "a Cloudflare API token")
    } else if is_secret(value, kind) {
        ("assigned-secret", "a value that is assigned to a secret's name")
    } else {
        return None;
    };
    Some(Span { start, end: start + value.len(), rule, what, is_sure: false })
}

/// The name before an assignment, in lower case without separators, and what stands before its last word.
fn name_before<'a>(content: &[u8], at: usize, buffer: &'a mut [u8; NAME]) -> (&'a [u8], Option<u8>) {
    let back = |end: usize, most: usize, kind: &dyn Fn(&u8) -> bool| {
        end - content[..end].iter().rev().take(most).take_while(|byte| kind(byte)).count()
    };
    let end = back(back(at, 8, &|byte| matches!(byte, b' ' | b'\t')), 4, &|byte| b"\"'`*]\\".contains(byte));
    let start = back(end, NAME, &|byte| DOTTED(byte) || *byte == b' ');
    let mut length = 0;
    for byte in content[start..end].iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        buffer[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let before = back(end, NAME, &|byte| DOTTED(byte)).checked_sub(1);
    (&buffer[..length], before.map(|before| content[before]))
}

/// Which kind of secret a name names.
fn names_secret(name: &[u8]) -> Option<Kind> {
    // The credentials of a registry, in Docker's configuration.
    if name == b"auth" {
        return Some(Kind::Other);
    }
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = &name[..name.len() - digits];
    let name = QUALIFIERS.iter().find_map(|it| name.strip_suffix(it.as_bytes())).unwrap_or(name);
    let ends = |name: &[u8], with: &[&str]| with.iter().any(|it| name.ends_with(it.as_bytes()));
    match name.strip_suffix(b"key") {
        _ if ends(name, &PASSWORDS) => Some(Kind::Password),
        _ if ends(name, &SECRETS) => Some(Kind::Other),
        Some(of) if ends(of, &KEYS) => Some(Kind::Other),
        _ => None,
    }
}

/// Where the value after an assignment begins, and its first bytes. None for code that computes one, and for prose in quotes.
fn value_after(content: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let mut start = at + 1;
    start += run(&content[start..], 8, |byte| b" \t=:>*".contains(byte));
    // A type between the name and the value: `token: &str = "..."`.
    let annotation = run(&content[start..], NAME, |byte| WORD(byte) || b"&'<>?|. ".contains(byte));
    let (typed, rest) = content[start..].split_at(annotation);
    if typed.ends_with(b" ") && rest.starts_with(b"=") {
        start += annotation + 1 + run(&rest[1..], 8, |byte| *byte == b' ');
    }
    let (opening, quote) = match &content[start..] {
        [quote @ (b'"' | b'\'' | b'`'), ..] => (1, Some(*quote)),
        [b'\\' | b'b' | b'f' | b'r' | b'u', quote @ (b'"' | b'\''), ..] => (2, Some(*quote)),
        _ => (0, None),
    };
    start += opening;
    let is_scheme =
        |it: &&&[u8]| content[start..].get(..it.len()).is_some_and(|text| text.eq_ignore_ascii_case(it));
    start += [&b"bearer "[..], b"basic ", b"token "].iter().find(is_scheme).map_or(0, |it| it.len());
    let length = run(&content[start..], VALUE, |byte| match quote {
        Some(quote) => *byte != quote && !b"\\\r\n".contains(byte),
        // The next field of a URL's query.
        None if *byte == b'&' => content[at] == b':',
        None => !byte.is_ascii_whitespace() && !b"\"'`,;<>()[]{}|\\".contains(byte),
    });
    let (value, rest) = content[start..].split_at(length);
    let is_code = quote.is_none() && matches!(rest.first(), Some(b'(' | b'['));
    let is_prose = value.iter().any(u8::is_ascii_whitespace);
    (!is_code && !is_prose).then_some((start, value))
}

/// Whether a value is as irregular as secrets are.
fn is_secret(value: &[u8], kind: Kind) -> bool {
    let has = |charset: Charset| value.iter().any(charset);
    if value.len() < 12 || !has(u8::is_ascii_digit) || !has(u8::is_ascii_alphabetic) {
        return false;
    }
    // Short values and digits in base 16 cannot have many.
    let bits = if value.len() < 20 || value.iter().all(HEX) { 3.0 } else { 3.5 };
    let is_public = ["arn:", "md5", "sha1", "sha256", "sha384", "sha512", "ENC[", "/nix/store/"]
        .iter()
        .any(|it| value.starts_with(it.as_bytes()));
    // People choose words for a password, but neither paths nor fields of a record.
    let is_name = is_words(value) && (kind == Kind::Other || has(|byte| matches!(byte, b'/' | b'.')));
    let is_other =
        is_public || is_name || is_placeholder(value) || is_reference(value) || contains(value, "://");
    !is_other && entropy(value) >= bits
}

/// Whether the body of a token is one, not a placeholder or part of a name.
fn is_random(body: &[u8]) -> bool {
    distinct(body) >= 6 && !is_words(body) && !is_placeholder(body)
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|it| it == part.as_bytes())
}

fn is_placeholder(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|it| contains(&lower, it))
}

/// Whether a text says where the secret comes from: a variable, a template, something in brackets.
fn is_reference(text: &[u8]) -> bool {
    match text {
        [b'$', name @ ..] if name.iter().all(WORD) => true,
        [b'<', .., b'>'] | [b'{', .., b'}'] | [b'[', .., b']'] | [b'%', .., b'%'] | [b'%', b's'] => true,
        _ => ["${", "$(", "#{", "{{", "%("].iter().any(|it| contains(text, it)),
    }
}

/// Whether it is made of words and numbers, as names, paths and versions are.
fn is_words(text: &[u8]) -> bool {
    let is_word = |piece: &[u8]| {
        let letters = &piece[..run(piece, piece.len(), u8::is_ascii_alphabetic)];
        let tail = letters.get(1..).unwrap_or_default();
        piece.len() <= 16
            && piece[letters.len()..].iter().all(u8::is_ascii_digit)
            && (tail.iter().all(u8::is_ascii_lowercase) || letters.iter().all(u8::is_ascii_uppercase))
    };
    let is_separator = |byte: &u8| b"-_./:@~".contains(byte);
    text.iter().any(is_separator) && text.split(is_separator).all(is_word)
}

fn counts(text: &[u8]) -> [u32; 256] {
    let mut counts = [0; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

fn distinct(text: &[u8]) -> usize {
    counts(text).iter().filter(|count| **count > 0).count()
}

/// Shannon's entropy, in bits for each byte.
fn entropy(text: &[u8]) -> f64 {
    let counts = counts(text);
    let length = f64::from(counts.iter().sum::<u32>());
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length);
    shares.map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const CAPITALS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const DIGITS: &str = "0123456789abcdef";

    /// Something random, made here so that no other scanner finds a secret in this file.
    fn some(alphabet: &str, length: usize) -> String {
        let mut state = 7_usize;
        let mut next = || {
            state = (state * 1_103_515_245 + 12_345) % 0x7fff_ffff;
            char::from(alphabet.as_bytes()[(state >> 8) % alphabet.len()])
        };
        (0..length).map(|_| next()).collect()
    }

    fn rules(text: &str) -> Vec<&'static str> {
        scan(text.as_bytes()).iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn known_formats_are_found() {
        let (any, upper, hex) = (|n| some(LETTERS, n), |n| some(CAPITALS, n), |n| some(DIGITS, n));
        for (rule, prefix, body) in [
            ("aws-access-key-id", "AKIA|ASIA|ABIA|ACCA", upper(16)),
            ("aws-bedrock-key", "ABSK", any(110) + "/+=="),
            ("github-token", "ghp_|gho_|ghu_|ghs_|ghr_", any(36)),
            ("github-token", "github_pat_", any(22) + "_" + &*any(59)),
            ("gitlab-token", "glpat-", any(20)),
            (
                "slack-token",
                "xoxa-|xoxb-|xoxp-|xoxr-|xoxs-",
                "123456789012-123456789012-".to_owned() + &*any(24),
            ),
            ("slack-token", "xapp-", "1-A0123456789-1234567890123-".to_owned() + &*hex(64)),
            ("slack-webhook", "hooks.slack.com/", format!("services/T{0}/B{0}/{1}", upper(9), any(24))),
            ("openai-key", "sk-", any(20) + "T3Blbk" + "FJ" + &*any(20)),
            ("openai-key", "sk-proj-", any(60) + "_-" + &*any(90)),
            ("anthropic-key", "sk-ant-", "api03-".to_owned() + &*any(93) + "-" + &*any(6) + "AA"),
            ("openrouter-key", "sk-or-v1-", hex(64)),
            ("xai-key", "xai-", any(80)),
            ("groq-key", "gsk_", any(52)),
            ("google-api-key", "AIza", any(35)),
            ("google-oauth-secret", "GOCSPX-", any(28)),
            ("stripe-key", "sk_live_|rk_live_", any(24)),
            ("twilio-key", "SK", hex(32)),
            ("sendgrid-key", "SG.", any(22) + "." + &*any(43)),
            ("npm-token", "npm_", any(36)),
            ("pypi-token", "pypi-", "AgEIcHlwaS5vcmc".to_owned() + &*any(150)),
            ("crates-io-token", "cio", any(32)),
            ("hugging-face-token", "hf_", any(34)),
            ("telegram-bot-token", "bot123456789:", any(35)),
            ("discord-bot-token", "M", any(23) + "." + &*any(6) + "." + &*any(27)),
            ("discord-webhook", "discord.com/api/webhooks/", "123456789012345678/".to_owned() + &*any(68)),
            ("age-secret-key", "AGE-SECRET-KEY-", "1".to_owned() + &*upper(58)),
            ("jwt", "eyJ", any(33) + ".eyJ" + &*any(700) + "." + &*any(43)),
            ("tailscale-key", "tskey-", "auth-k".to_owned() + &*any(12) + "-" + &*any(32)),
            ("digitalocean-token", "dop_v1_", hex(64)),
            ("linear-key", "lin_api_", any(40)),
            ("nix-signing-key", "cache.host-1:", any(86) + "=="),
            ("private-key", "-----BEGIN ", "OPENSSH PRIVATE".to_owned() + " KEY-----"),
            ("private-key", "-----BEGIN ", "PRIVATE".to_owned() + " KEY-----\nMC4CAQAw"),
            ("private-key", "-----BEGIN ", "PGP PRIVATE".to_owned() + " KEY BLOCK-----"),
            ("private-key", "LS0tLS1CRUdJTiBSU0Eg", "UFJJVkFURSBLRVkt".to_owned() + &*any(64)),
        ] {
            let starts = prefix.split('|').map(|prefix| format!("{prefix}{body}"));
            for token in starts {
                for (before, after) in [("", ""), ("see `", "`."), ("token = \"", "\"\n"), (r"a\n", r"\n")] {
                    let text = format!("{before}{token}{after}");
                    assert_eq!(rules(&text), [rule], "{text}");
                }
                assert_eq!(rules(&format!("\x1b[31;1m{token}\x1b[0m?x=%3D{token}&")), [rule; 2], "{token}");
            }
        }
    }

    #[test]
    fn other_secrets_are_found_by_what_stands_around_them() {
        let (secret, aws) = (some(LETTERS, 24), some(LETTERS, 38) + "/+");
        for (rule, text) in [
            ("aws-secret-access-key", format!("aws_secret_access_key = {aws}")),
            ("aws-secret-access-key", format!("{{\"SecretAccessKey\": \"{aws}\"}}")),
            ("cloudflare-token", format!("export CLOUDFLARE_API_TOKEN={}", some(LETTERS, 40))),
            ("url-password", format!("postgres://clawd:{}@db.internal:5432/x", some(LETTERS, 7))),
            ("url-password", format!("redis://:{secret}@localhost")),
            ("assigned-secret", format!("password = \"{secret}\"")),
            ("assigned-secret", format!("DB_PASSWORD_PROD: '{secret}'")),
            ("assigned-secret", format!("- **API key**: `{secret}`")),
            ("assigned-secret", format!("The api key: {secret}, for now")),
            ("assigned-secret", format!("**API key:** {secret}")),
            ("assigned-secret", format!("time:12 token:{secret}")),
            ("assigned-secret", "secret_key: 0123456701234567".to_owned() + "01234567012389ab"),
            ("assigned-secret", "password: Tr0ub4".to_owned() + "dor&333"),
            ("assigned-secret", "token = \"qwzxkvjhgfdmnbpl".to_owned() + "trs-90210\""),
            ("assigned-secret", format!("const TOKEN: &'static str = \"{secret}\";")),
            ("assigned-secret", format!(r#"{{\"clientSecret\": \"{secret}\"}}"#)),
            ("assigned-secret", format!("curl -H 'Authorization: Bearer {secret}'")),
            ("assigned-secret", format!("https://host/x?access_token={secret}&page=example")),
            ("assigned-secret", format!("hashedPassword = \"$y$j9T${secret}\"")),
            ("assigned-secret", format!("\"auth\": \"{secret}==\"")),
            ("assigned-secret", format!("secret_key: {}", some(DIGITS, 32))),
            ("assigned-secret", format!("PASSWORD={}", "copper-lantern-".to_owned() + "riverbed-42")),
        ] {
            assert_eq!(rules(&text), [rule], "{text}");
        }
    }

    #[test]
    fn harmless_texts_are_not_found() {
        let (any, hex) = (some(LETTERS, 40), some(DIGITS, 64));
        for text in [
            "# Goals\n\n- [ ] rotate the tokens: 12 hosts, see ops.md\n- task-list-of-things-that-are-to-be-done-2026",
            "password: changeme\nsecret = \"example\"\ntoken: <token>\napi_key = xxxxxxxxxxxxxxxxxxxx1",
            "token = \"${TOKEN_2_FOR_THE_HOST}\"\nAPI_KEY=$API_KEY_2\nsecret: {{ vault_secret_1 }}\nkey: your-token-here-123",
            "token: ${{ secrets.GITHUB_TOKEN }}\npassword=$(cat /run/agenix/password-1)",
            "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-ant-api03-your-key-here-please xoxb-your-token-goes-here-now",
            "The prefixes are AKIA, ghp_, github_pat_, sk-ant-, xoxb-, eyJ, hf_ and AGE-SECRET-KEY-1...",
            "id: 6f1c2b9e-52b7-4c61-9a3e-0d5f7a1b2c3d\ncommit 3f2a9c41d07be85521c9e6cbf60a1b94d8e7f350",
            "secret = \"arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/clawd-AbCd12\"",
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-x9Y8z7W6v5\narn:aws:iam::123456789012:role/x",
            "/nix/store/0c5pbq1c1yzmd2q0w8d0p9nfm1v3x7kj-openssl-3.0.12 tokenFile = /run/agenix/token-1",
            "secretKeyFile = ./keys/host1-signing.age\nsecret: /nix/store/0c5pbq1c1yzmd2q0w8d0p9nfm1v3x7kj-token",
            "![](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD",
            "password: aB3xK9zQ2wE\ntoken = 1234567890123456\npassword: correcthorsebattery\ntoken = decode2Utf8String4you(x)",
            "password: \"see entry x9Y8z7w6 of the safe\"\ntoken: https://host.org/9aB8c7D6e5F4g3H2\nAKIA1111111111111111",
            "secretName: clawd-api-tls-2026-11\nmax_tokens: 128000\ntoken_count = 123456789012\ntokenizer: cl100k_base_v12345",
            "let token = parse_token2_of_header(&request); let password = config.database.password2;",
            "https://user:password@host https://user:<password>@host https://u:${PASS}@host https://u:***@h http://u:xxx@h",
            "https://u:DB_PASSWORD@h https://u:API_KEY@h http://u:…@h",
            "https://example.org:8443/a@b ssh://git@github.com:22/x mailto:a@b.c https://u:%s@h",
            "-----BEGIN PUBLIC KEY-----\n-----BEGIN CERTIFICATE-----\n`-----BEGIN ... PRIVATE KEY-----`",
            "expires token: 2026-11-26T10:00:00Z\npassword: see the safe, entry no. 12345678\ntoken: claude-sonnet-4-5-20250929",
            "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\ntime: 1234567890:12",
            &format!("12:{} 123456789:{} 123456789:{}", &any[..35], &any[..34], &any[..36]),
            &format!("M{}.{}.{}", "a".repeat(23), "a".repeat(6), "a".repeat(27)),
            &format!("sha512:{}==", some(LETTERS, 86)),
            &format!("sha256:{hex}\nsecret = \"sha256:{hex}\"\nnarHash = \"sha256-{any}xyz=\"\nrev: {any}"),
        ] {
            assert_eq!(scan(text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn a_finding_says_where_it_is_and_not_what() {
        let (key, secret) = (format!("AKIA{}", some(CAPITALS, 16)), some(LETTERS, 20));
        let text = format!("äö {key}\r\n\n  token: {secret} {key}\n");
        let mut content = b"\xff\xfe\x00".to_vec();
        content.extend_from_slice(text.as_bytes());
        let found = scan(&content);
        let places: Vec<_> = found.iter().map(|it| (it.line, it.column, it.rule)).collect();
        // Each of the two bytes that begin no character counts as one, as does the zero.
        let key_id = "aws-access-key-id";
        assert_eq!(places, [(1, 7, key_id), (3, 10, "assigned-secret"), (3, 31, key_id)]);
        let both = format!("ghp_{}123456789:{}", some(LETTERS, 36), some(LETTERS, 35));
        assert_eq!(rules(&both), ["github-token"]);
        let told = format!("{found:?}");
        assert!(!told.contains(&secret[..4]) && !told.contains(&key[..6]), "{told}");
        assert_eq!(scan(b""), []);
    }

    /// Each would take minutes if what a rule looks at grew with the line.
    #[test]
    fn a_long_line_takes_no_longer_than_many_short_ones() {
        let token = format!(" ghp_{}", some(LETTERS, 36));
        for (start, size) in [
            ("A note. See https://host/x?y=1: z.", 4 << 20),
            ("sk-proj-", 1 << 18),
            ("token=", 1 << 18),
            ("eyJa.", 1 << 19),
            ("eyJaaaaaaaaa.eyJ", 1 << 19),
            ("://a:", 1 << 19),
            ("é-----BEGIN ", 1 << 19),
        ] {
            let line = start.repeat(size / start.len()) + &*token;
            let found = scan(line.as_bytes());
            let place = found.first().map(|it| (it.line, it.column, it.rule));
            let column = line.chars().count() - token.len() + 2;
            assert_eq!((found.len(), place), (1, Some((1, column, "github-token"))), "{start}");
        }
        assert_eq!(scan(token.repeat(1 << 12).as_bytes()).len(), 1 << 12);
    }

    #[test]
    fn no_content_makes_it_fail() {
        let parts = [
            ":",
            "=",
            "://",
            "@",
            "\\u00",
            "%4",
            "[1;",
            ".",
            "eyJ",
            "token",
            "-----BEGIN ",
            "\"",
            "é",
            "\n",
            "sk-",
            "M",
        ];
        let mut state = 1_usize;
        for _ in 0..20_000 {
            let mut content = Vec::new();
            for _ in 0..12 {
                state = (state * 1_103_515_245 + 12_345) % 0x7fff_ffff;
                content.extend_from_slice(parts[(state >> 8) % parts.len()].as_bytes());
            }
            content.truncate(content.len() - state % 3);
            let _ = scan(&content);
        }
    }
}

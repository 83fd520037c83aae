//! The formats of secrets that their prefixes give away, and the words that secrets are assigned to. A new format is a row here.

use super::AHEAD;

pub(super) type Charset = fn(&u8) -> bool;

pub(super) const HEX: Charset = u8::is_ascii_hexdigit;
pub(super) const ALNUM: Charset = u8::is_ascii_alphanumeric;
pub(super) const UPPER: Charset = |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit();
pub(super) const WORD: Charset = |byte| byte.is_ascii_alphanumeric() || *byte == b'_';
pub(super) const URL_SAFE: Charset = |byte| WORD(byte) || *byte == b'-';
pub(super) const DOTTED: Charset = |byte| URL_SAFE(byte) || *byte == b'.';
pub(super) const PATH: Charset = |byte| URL_SAFE(byte) || *byte == b'/';
pub(super) const BASE64: Charset = |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');

/// A format that its prefix gives away.
pub(super) struct Token {
    pub(super) rule: &'static str,
    pub(super) what: &'static str,
    /// What may follow a prefix, and how much of it.
    pub(super) charset: Charset,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) prefixes: &'static [&'static str],
}

const fn token(
    rule: &'static str,
    what: &'static str,
    charset: Charset,
    min: usize,
    max: usize,
    prefixes: &'static [&'static str],
) -> Token {
    Token { rule, what, charset, min, max, prefixes }
}

/// The known formats. No text is of two of them.
pub(super) static TOKENS: [Token; 41] = [
    token("aws-access-key-id", "an AWS access key id", UPPER, 16, 16, &["AKIA", "ASIA", "ABIA", "ACCA"]),
    token("aws-bedrock-key", "an AWS Bedrock API key", BASE64, 100, AHEAD, &["ABSK"]),
    token("github-token", "a GitHub token", WORD, 36, AHEAD, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"]),
    token("github-token", "a GitHub token", WORD, 36, AHEAD, &["github_pat_"]),
    token("gitlab-token", "a GitLab token", URL_SAFE, 20, AHEAD, &["glpat-", "gldt-", "glrt-", "glptt-"]),
    token("slack-token", "a Slack token", URL_SAFE, 20, AHEAD, &["xoxa-", "xoxb-", "xoxe-", "xoxp-"]),
    token("slack-token", "a Slack token", URL_SAFE, 20, AHEAD, &["xoxr-", "xoxs-", "xapp-"]),
    token("slack-webhook", "a Slack webhook", PATH, 40, AHEAD, &["hooks.slack.com/"]),
    token("openai-key", "an OpenAI key", URL_SAFE, 20, AHEAD, &["sk-proj-", "sk-svcacct-", "sk-admin-"]),
    token("openai-key", "an API key in OpenAI's format", ALNUM, 32, AHEAD, &["sk-"]),
    token("anthropic-key", "an Anthropic key", URL_SAFE, 20, AHEAD, &["sk-ant-"]),
    token("openrouter-key", "an OpenRouter key", HEX, 64, 64, &["sk-or-v1-"]),
    token("xai-key", "an xAI key", ALNUM, 32, AHEAD, &["xai-"]),
    token("groq-key", "a Groq key", ALNUM, 32, AHEAD, &["gsk_"]),
    token("google-api-key", "a Google API key", URL_SAFE, 35, 35, &["AIza"]),
    token("google-oauth-secret", "a Google OAuth client secret", URL_SAFE, 20, AHEAD, &["GOCSPX-"]),
    token("google-oauth-token", "a Google OAuth token", URL_SAFE, 30, AHEAD, &["ya29."]),
    token("stripe-key", "a Stripe key", ALNUM, 16, AHEAD, &["sk_live_", "rk_live_"]),
    token("stripe-webhook-secret", "a Stripe webhook secret", BASE64, 24, AHEAD, &["whsec_"]),
    token("twilio-key", "a Twilio API key", HEX, 32, 32, &["SK"]),
    token("sendgrid-key", "a SendGrid API key", DOTTED, 60, AHEAD, &["SG."]),
    token("npm-token", "an npm token", ALNUM, 36, AHEAD, &["npm_"]),
    token("pypi-token", "a PyPI token", URL_SAFE, 50, AHEAD, &["pypi-Ag"]),
    token("crates-io-token", "a crates.io token", ALNUM, 32, 32, &["cio"]),
    token("hugging-face-token", "a Hugging Face token", ALNUM, 34, AHEAD, &["hf_", "api_org_"]),
    token("discord-webhook", "a Discord webhook", PATH, 60, AHEAD, &["discord.com/api/webhooks/"]),
    token("discord-webhook", "a Discord webhook", PATH, 60, AHEAD, &["discordapp.com/api/webhooks/"]),
    token("age-secret-key", "an age secret key", URL_SAFE, 50, AHEAD, &["AGE-SECRET-KEY-"]),
    token("tailscale-key", "a Tailscale key", URL_SAFE, 20, AHEAD, &["tskey-"]),
    token("digitalocean-token", "a DigitalOcean token", HEX, 64, 64, &["dop_v1_", "doo_v1_", "dor_v1_"]),
    token("linear-key", "a Linear API key", ALNUM, 32, AHEAD, &["lin_api_", "lin_oauth_"]),
    token("cloudflare-origin-key", "a Cloudflare origin CA key", URL_SAFE, 171, 171, &["v1.0-"]),
    token("vault-token", "a Vault token", URL_SAFE, 24, AHEAD, &["hvs.", "hvb."]),
    token("1password-token", "a 1Password service account token", URL_SAFE, 100, AHEAD, &["ops_eyJ"]),
    token("atlassian-token", "an Atlassian API token", URL_SAFE, 80, AHEAD, &["ATATT3"]),
    token("notion-token", "a Notion token", ALNUM, 40, AHEAD, &["ntn_"]),
    // `-----BEGIN PRIV`, `RSA PRI`, `EC PRI`, `OPENSSH` and `ENCRYP` in base64, as in a kubeconfig.
    token("private-key", "a private key", BASE64, 20, AHEAD, &["LS0tLS1CRUdJTiBQUklW"]),
    token("private-key", "a private key", BASE64, 20, AHEAD, &["LS0tLS1CRUdJTiBSU0EgUFJJ"]),
    token("private-key", "a private key", BASE64, 20, AHEAD, &["LS0tLS1CRUdJTiBFQyBQUkl"]),
    token("private-key", "a private key", BASE64, 20, AHEAD, &["LS0tLS1CRUdJTiBPUEVOU1NI"]),
    token("private-key", "a private key", BASE64, 20, AHEAD, &["LS0tLS1CRUdJTiBFTkNSWVB"]),
];

/// How the names of passwords end, without separators; people choose words for these.
pub(super) const PASSWORDS: [&str; 5] = ["password", "passwd", "passphrase", "passcode", "pwd"];

/// How the names of other secrets end.
pub(super) const SECRETS: [&str; 4] = ["secret", "token", "authorization", "secretkeybase"];

/// Whose keys are secrets.
pub(super) const KEYS: [&str; 8] =
    ["api", "access", "secret", "private", "auth", "signing", "encryption", "account"];

/// What may stand after the name of a secret.
pub(super) const QUALIFIERS: [&str; 8] =
    ["production", "prod", "staging", "dev", "live", "old", "new", "value"];

/// What a placeholder holds.
pub(super) const PLACEHOLDERS: [&str; 9] =
    ["example", "changeme", "change-me", "change_me", "placeholder", "redacted", "your-", "your_", "xxxxx"];

/// What stands for the password in a URL.
pub(super) const STAND_INS: [&str; 9] =
    ["password", "passwd", "pass", "pwd", "pw", "secret", "token", "key", "apikey"];

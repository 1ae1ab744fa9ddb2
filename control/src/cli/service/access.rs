//! `ringway access`: a person signs in, and its devices may connect.
//!
//! Unlike the other commands this one speaks for whoever it signs in, so no API token is sent: what
//! `--token-file` names is an access token (JWT) that is presented, as a password is. The gateway
//! asks for what the policy wants, and the person is asked in turn.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{Desk, Noun};
use crate::cli::ask;
use crate::cli::client::{Body, path};
use crate::cli::show::{self, moment, word};
use crate::failure::{Failure, Status};

/// Questions that a sign-in may ask: no policy has more factors.
const QUESTIONS_MAX: usize = 10;

/// `ringway access`.
#[derive(Debug, Subcommand)]
pub(crate) enum AccessVerb {
    /// Sign in, so that your devices may connect
    SignIn(SignInArgs),
    /// End the access of all your devices; needs an API token of yours
    End,
}

/// `ringway access sign-in`.
#[derive(Args, Debug)]
pub(crate) struct SignInArgs {
    /// Your name; may be left out with --cert or --token-file
    name: Option<String>,
    /// For this device only [default: all of yours]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Your password, from a file or "-"; you are asked for it otherwise
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A one-time password or recovery code, likewise
    #[arg(long, value_name = "FILE")]
    totp_file: Option<PathBuf>,
    /// Your client certificate and those that lead to its authority (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Does it.
pub(crate) fn run(noun: Noun<AccessVerb>) -> Result<Status, Failure> {
    match noun.verb {
        AccessVerb::SignIn(args) => {
            let identity = args.cert.as_ref().zip(args.key.as_ref());
            let connect = &noun.common.connect;
            let token = connect.presented_token()?;
            let desk = noun.common.desk_at(connect.target_for_sign_in(identity)?)?;
            sign_in(&desk, &args, token)
        }
        AccessVerb::End => {
            let desk = noun.common.desk()?;
            let answer = desk.send(Method::DELETE, &path(&["access"]), Body::Empty, None)?;
            desk.done(&answer, "", "The access of your devices has ended")
        }
    }
}

fn sign_in(
    desk: &Desk,
    args: &SignInArgs,
    token: Option<Zeroizing<String>>,
) -> Result<Status, Failure> {
    if args.name.is_none() && args.cert.is_none() && token.is_none() {
        let message = "Say who you are: a name, --cert with --key, or --token-file";
        return Err(Failure::new(Status::Usage, message));
    }
    // Which of the two comes first is the policy's business; most ask for the password first, so a
    // one-time password alone waits until it is asked for, unless something else begins.
    let begins = args.password_file.is_some() || args.cert.is_some() || token.is_some();
    let mut waiting = None;
    let mut first = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            first.insert(name.to_owned(), json!(value));
        }
    };
    put("name", args.name.as_deref());
    put("token", token.as_deref().map(String::as_str));
    put("device", args.device.as_deref());
    for (name, file) in [("password", &args.password_file), ("totp", &args.totp_file)] {
        if let Some(file) = file {
            let secret = ask::secret(name, Some(file), false)?;
            if name == "totp" && !begins {
                waiting = Some(secret);
            } else {
                put(name, Some(&secret));
            }
        }
    }
    let at = path(&["access", "sign-in"]);
    let mut body = Value::Object(first);
    for _ in 0..QUESTIONS_MAX {
        let answer = desk.send(Method::POST, &at, Body::Json(body), None)?;
        let said = answer.json()?;
        if !said["continuation"].is_string() {
            let devices = said["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
            let names: Vec<String> = devices.iter().map(|device| word(device, "/name")).collect();
            let until = match moment(&said, "/until").as_str() {
                show::NOTHING => "without end".to_owned(),
                until => format!("until {until}"),
            };
            return desk.done(
                &answer,
                "/user",
                &format!("{} may connect {until}", names.join(", ")),
            );
        }
        let factor = word(&said, "/factor");
        if !matches!(&*factor, "password" | "totp") {
            let message = format!("The gateway asks for {factor}: give it with the command");
            return Err(Failure::new(Status::Denied, message));
        }
        let mut next = Map::new();
        let answer = match waiting.take_if(|_| factor == "totp") {
            Some(answer) => answer,
            None => ask::secret(&word(&said, "/prompt"), None, false)?,
        };
        next.insert(factor, json!(*answer));
        next.insert("continuation".to_owned(), said["continuation"].clone());
        if let Some(device) = &args.device {
            next.insert("device".to_owned(), json!(device));
        }
        body = Value::Object(next);
    }
    let message = "The gateway asks again and again: its policy cannot be met";
    Err(Failure::new(Status::Denied, message))
}

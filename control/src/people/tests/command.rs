//! `ringway access` against a gateway, as a person types it.

use super::*;
use crate::cli;
use crate::gateway::fake_cores::on_control_thread;

/// Runs the command for the gateway of `world`; on a thread of its own, as its process would.
async fn run(world: &World, line: &str) -> Result<Status, Failure> {
    let trust = world.folder.path().join("api-certificate.pem");
    let line = format!(
        "ringway access {line} --api https://localhost:{} --ca {}",
        world.port,
        trust.display()
    );
    tokio::task::spawn_blocking(move || cli::obey(&line)).await.unwrap()
}

#[test]
fn the_command_signs_in_by_password_certificate_and_token() {
    on_control_thread(async {
        let world = World::new("command").await;
        let file = |name: &str, text: &str| {
            let path = world.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let by_password = world.user("ann", &[Factor::Password, Factor::Totp]).await;
        let (password, totp) = (file("password", PASSWORD), file("totp", &code()));
        let line = format!("sign-in ann --password-file {password}");
        let alone = run(&world, &line).await.unwrap_err();
        assert!(alone.message.contains("One-time password"), "{alone}");
        run(&world, &format!("{line} --totp-file {totp} --device laptop")).await.unwrap();
        until(|| world.is_peer(&by_password)).await;

        let by_certificate = world.user("bob", &[Factor::Certificate]).await;
        world.authority.issue("bob", "bob");
        let [certificate, key] =
            ["pem", "key"].map(|ending| world.authority.file("bob", ending).display().to_string());
        // The question is that for any name, which is no certificate.
        let asked = run(&world, "sign-in bob").await.unwrap_err();
        assert!(asked.message.contains("Password"), "{asked}");
        run(&world, &format!("sign-in --cert {certificate} --key {key} -q")).await.unwrap();
        until(|| world.is_peer(&by_certificate)).await;

        let by_token = world.user("carl", &[Factor::Token]).await;
        let token = file("token.jwt", &world.token("carl", 600));
        run(&world, &format!("sign-in --token-file {token} --json")).await.unwrap();
        until(|| world.is_peer(&by_token)).await;
        let nobody = run(&world, "sign-in").await.unwrap_err();
        assert_eq!(nobody.status, Status::Usage);
    });
}

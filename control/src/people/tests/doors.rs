//! Doors of the API that cannot be opened, seen by the one that can.

use super::*;
use crate::gateway::fake_cores::on_control_thread;

/// What the API answers on its Unix socket, to root or whoever the gateway runs as.
async fn ask(socket: &std::path::Path, path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20", "--unix-socket"]).arg(socket);
    command.arg(format!("http://localhost{path}"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn an_operator_is_told_on_the_socket_which_door_is_closed_and_it_opens_by_itself() {
    on_control_thread(async {
        let folder = Scratch::new("people_doors");
        let (made, socket) = (Scratch::new("people_doors_made"), folder.path().join("rw.api"));
        Authority::new(&folder.path().join("authority"), "Crew CA").publish();
        Authority::new(&folder.path().join("authority/branch"), "Branch").publish();
        std::fs::write(folder.path().join("keys.json"), "{\"keys\":[]}").unwrap();
        Tls::self_made(made.path(), vec!["localhost".to_owned()], 2026).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut plan = plan(&folder, port, "");
        plan.config.api.socket = Some(socket.clone());
        let (reloads, _heard) = mpsc::channel(1);
        let people = People::new(plan, desk(1).0, reloads);
        let task = spawn_local(Rc::clone(&people).run());
        until(|| socket.exists()).await;
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let status = read(ask(&socket, "/api/v1/status").await);
        assert_eq!(status["api"][0]["open"], true, "{status}");
        assert_eq!(status["api"][1]["reason"], "certificate_unreadable", "{status}");
        let health = read(ask(&socket, "/api/v1/health").await);
        assert_eq!(health["healthy"], true, "traffic is carried all the same: {health}");
        let parts = health["parts"].as_array().unwrap();
        let api = parts.iter().find(|part| part["name"] == "api").unwrap();
        assert_eq!(api["healthy"], false);
        assert!(api["why"].as_str().unwrap().contains("api-certificate.pem"), "{health}");
        let metrics = ask(&socket, "/api/v1/metrics").await;
        for line in [
            "ringway_api_doors{kind=\"unix\",state=\"open\"} 1\n",
            "ringway_api_doors{kind=\"https\",state=\"open\"} 0\n",
            "ringway_api_doors{kind=\"https\",state=\"certificate_unreadable\"} 1\n",
        ] {
            assert!(metrics.contains(line), "lacks {line}: {metrics}");
        }
        for name in ["api-key.pem", "api-certificate.pem"] {
            std::fs::copy(made.path().join(name), folder.path().join(name)).unwrap();
        }
        until(|| TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        let status = read(ask(&socket, "/api/v1/status").await);
        assert_eq!(status["api"][1]["open"], true, "{status}");
        let health = read(ask(&socket, "/api/v1/health").await);
        assert!(!health.to_string().contains("api-certificate"), "{health}");
        task.abort();
    });
}

//! What `top --once --json` prints: the model as one object, for programs that want rates without
//! doing the sums. Pure; names are those of the API where it has them.

use serde_json::{Value, json};

use super::model::{CoreRates, Model};
use super::view::View;

/// The model, with the sessions that `view` asks for, in its order.
pub(super) fn of(model: &Model, view: &View) -> Value {
    let last = &model.last;
    let cores = model.cores.iter().map(|(number, core)| {
        let mut core = rates(*core);
        core["core"] = json!(number);
        core
    });
    let drops = model.drops.iter().map(|(reason, per_second, total)| {
        json!({ "reason": reason, "per_second": per_second, "total": total })
    });
    let sessions = model.sessions(view).into_iter().map(|one| {
        json!({
            "id": one.id,
            "user": one.user,
            "device": one.device,
            "client_ip": one.client,
            "status": one.state,
            "rate_up_bps": one.up_bps,
            "rate_down_bps": one.down_bps,
            "connected_at": one.connected_at,
            "core": one.core,
        })
    });
    let used_up =
        last.used_up.iter().map(|(user, action)| json!({ "user": user, "action": action }));
    json!({
        "at": last.now,
        "status": last.status,
        "parts": last.health,
        "whole": rates(model.whole()),
        "cores": cores.collect::<Vec<_>>(),
        "drops": drops.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "quotas_used_up": used_up.collect::<Vec<_>>(),
        "notes": last.notes,
    })
}

fn rates(core: CoreRates) -> Value {
    json!({
        // Thousandths are more than the kernel's clock tells in a second.
        "busy": (core.busy * 1000.0).round() / 1000.0,
        "packets_up_per_second": core.up_packets,
        "packets_down_per_second": core.down_packets,
        "rate_up_bps": core.up_bps,
        "rate_down_bps": core.down_bps,
        "drops_per_second": core.drops,
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::reading;
    use super::super::view::Sort;
    use super::*;

    #[test]
    fn one_object_says_what_the_screen_says() {
        let mut model = Model::default();
        model.take(reading(10));
        model.take(reading(12));
        let view = View { sort: Sort::User, filter: "a".to_owned(), ..View::default() };
        let shown = of(&model, &view);
        assert_eq!(shown["whole"]["rate_up_bps"], 3_000_000);
        assert_eq!(shown["cores"][1]["core"], 1);
        assert_eq!(shown["cores"][1]["busy"], 0.5);
        assert_eq!(shown["cores"][1]["packets_down_per_second"], 4_000);
        let reason = json!({"reason": "rate_exceeded_to_client", "per_second": 20, "total": 240});
        assert_eq!(shown["drops"][0], reason);
        let users: Vec<&Value> =
            shown["sessions"].as_array().unwrap().iter().map(|one| &one["user"]).collect();
        assert_eq!(users, ["ada", "alan", "grace"]);
        assert_eq!(shown["quotas_used_up"][0], json!({"user": "alan", "action": "throttle"}));
        assert_eq!(shown["status"]["state"], "running");
        assert_eq!(shown["parts"][0]["healthy"], false);
    }

    #[test]
    fn before_there_are_rates_there_are_no_cores() {
        let shown = of(&Model::default(), &View::default());
        assert_eq!(shown["cores"], json!([]));
        assert_eq!(shown["whole"]["rate_down_bps"], 0);
    }
}

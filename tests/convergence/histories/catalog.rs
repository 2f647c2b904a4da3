//! The lives of customers, products, coupons and of objects nobody knows: made, changed, deleted.
//! Where the caller chooses the id, the same one may be made again.

use serde_json::{Value, json};

use super::teller::Teller;

/// Tells one, and whether it was deleted in the end.
pub fn any(t: &mut Teller, object_type: &str) -> bool {
    let id = match object_type {
        "customer" if t.rng.chance(70) => t.rng.id("cus"),
        "widget" => t.rng.id("wid"),
        // Few, so that several accounts and modes have the same.
        _ => format!("{}-{}", t.rng.pick(&["gold", "silver", "été"]), t.rng.between(1, 400)),
    };
    let reusable = object_type != "widget";
    loop {
        live(t, object_type, &id);
        if t.rng.chance(60) {
            return false;
        }
        let says_so = t.rng.chance(30);
        t.change(&[&format!("{object_type}.deleted")], |state| {
            if says_so {
                state["deleted"] = json!(true);
            }
        });
        if !reusable || t.rng.chance(40) {
            return true;
        }
        if t.state["created"].as_i64() >= Some(t.now()) {
            // Nothing could tell the new object from the old one.
            t.next_second();
        }
    }
}

fn live(t: &mut Teller, object_type: &str, id: &str) {
    let (now, fresh) = (t.now(), t.rng.id("v"));
    t.change(&[&format!("{object_type}.created")], |state| {
        *state = json!({
            "id": id,
            "object": object_type,
            "created": now,
            "metadata": {},
            "name": fresh,
        });
        match object_type {
            "customer" => {
                state["address"] = json!({"city": null, "country": "DE", "line1": null});
                state["balance"] = json!(0);
                state["preferred_locales"] = json!([]);
            }
            "product" => {
                state["active"] = json!(true);
                state["images"] = json!([]);
                state["updated"] = json!(now);
            }
            "coupon" => {
                state["percent_off"] = json!(25);
                state["times_redeemed"] = json!(0);
            }
            _ => state["shape"] = json!({"sides": [3, 4, 5], "color": {"name": "blue"}}),
        }
    });
    for _ in 0..t.rng.between(0, 6) {
        edit(t, object_type);
    }
}

fn edit(t: &mut Teller, object_type: &str) {
    let updated = format!("{object_type}.updated");
    let types = [updated.as_str()];
    let fresh = t.rng.id("v");
    let what = t.rng.between(0, 7);
    if (what, object_type) == (2, "coupon") {
        // It changes without an event too, so that its events may not join.
        t.next_second();
    }
    if what == 2 || (what, object_type) == (4, "widget") {
        t.go_back();
    }
    match (what, object_type) {
        (0, _) => t.change(&types, |state| state["name"] = json!(fresh)),
        (1, _) => t.flip(&updated, "name", json!(fresh)),
        (2, _) => t.change(&types, |state| state["metadata"] = json!({})),
        (3, "customer") => t.change(&types, |state| state["address"]["city"] = json!(fresh)),
        (4, "customer") => t.change(&types, |state| push(&mut state["preferred_locales"], &fresh)),
        (5, "customer") => t.change(&types, |state| {
            state["balance"] = json!(state["balance"].as_i64().unwrap() - 100);
        }),
        (3 | 4, "product") => t.change(&types, |state| push(&mut state["images"], &fresh)),
        (5, "product") => t.change(&types, |state| {
            state["active"] = json!(state["active"] == false);
        }),
        // No event tells of this.
        (3, "coupon") if t.rng.chance(30) => t.change(&[], |state| {
            state["times_redeemed"] = json!(state["times_redeemed"].as_i64().unwrap() + 1);
        }),
        (3, "widget") => t.change(&types, |state| push(&mut state["shape"]["sides"], &fresh)),
        (4, "widget") => t.change(&types, |state| state["shape"]["color"] = Value::Null),
        (5, "widget") => {
            t.change(&types, |state| state["shape"]["color"] = json!({"name": fresh}));
        }
        (6, "widget") => t.change(&["widget.looked_at"], |_| {}),
        _ => t.change(&types, |state| state["metadata"]["note"] = json!(fresh)),
    }
}

fn push(array: &mut Value, item: &str) {
    array.as_array_mut().unwrap().push(json!(item));
}

//! The dashboard's pages. What they show is asked of `store`, what their buttons do stands in
//! `http::admin`.

/// The page that asks for a token; `next` is where to go afterwards, `wrong` why the last try failed.
pub fn login_page(next: &str, wrong: Option<&str>) -> String {
    let escaped =
        |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    format!(
        "<!doctype html><html lang=\"en\"><title>Tollgate</title><p>{}</p><form method=\"post\" action=\"/login\">\
         <input type=\"hidden\" name=\"next\" value=\"{}\"><label>Token <input name=\"token\" type=\"password\"></label>\
         <button>Log in</button></form>",
        escaped(wrong.unwrap_or_default()),
        escaped(next)
    )
}

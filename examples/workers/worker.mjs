// Prints every Stripe event once. Run as many as you like: DATABASE_URL=… node worker.mjs
import pg from "pg";

const db = new pg.Client({ connectionString: process.env.DATABASE_URL });
let running = true, timer, wake = () => {};
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => { running = false; wake(); });
db.on("notification", () => wake());

// The work. What it writes over `db` is committed with the acknowledgement, hence exactly once.
async function handle(event) {
  if (event.type === process.env.FAIL_TYPE) throw new Error("told to fail"); // to watch a failure
  console.log(event.position, event.event_id, event.type);
}

await db.connect();
await db.query("SELECT tollgate.create_consumer('node', start => 'earliest', if_not_exists => true)");
await db.query("LISTEN tollgate_events");
while (running) {
  const { rows } = await db.query("SELECT * FROM tollgate.claim('node', 100)");
  if (rows.length === 0 && running) { // a notification is only a hint: retries come without one
    await new Promise((resolve) => { wake = resolve; timer = setTimeout(resolve, 1000); });
    clearTimeout(timer);
  }
  for (const event of rows) {
    try {
      await db.query("BEGIN");
      await handle(event);
      await db.query("SELECT tollgate.ack($1, $2)", [event.claim, [event.position]]);
      await db.query("COMMIT");
    } catch (error) {
      await db.query("ROLLBACK");
      await db.query("SELECT tollgate.nack($1, $2, $3)", [event.claim, event.position, error.message]);
    }
  }
}
await db.end();

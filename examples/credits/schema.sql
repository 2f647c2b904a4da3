-- A small SaaS: accounts, licences and credits, kept by three handlers in the transaction that
-- records each event. Load it into the gateway's database:
--   tollgate psql -- -f examples/credits/schema.sql

CREATE SCHEMA saas;

CREATE TABLE saas.accounts (
    customer text PRIMARY KEY,
    email    text,
    credits  bigint NOT NULL DEFAULT 0 CHECK (credits >= 0)
);

CREATE TABLE saas.licences (
    subscription text PRIMARY KEY,
    customer     text NOT NULL,
    active       boolean NOT NULL
);

-- What was granted, and why: the log of the credits.
CREATE TABLE saas.grants (
    event    text PRIMARY KEY,
    customer text NOT NULL,
    credits  bigint NOT NULL
);

-- Events come in any order: an invoice may be paid before its customer is known.
CREATE FUNCTION saas.on_customer(event jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO saas.accounts (customer, email)
    VALUES (event #>> '{data,object,id}', event #>> '{data,object,email}')
    ON CONFLICT (customer) DO UPDATE SET email = excluded.email
$$;

-- Does not look at the event's own status: a late event may show an old one. With the billing
-- tables on, stripe.subscriptions has the newest, in this same transaction.
CREATE FUNCTION saas.on_subscription(event jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO saas.licences (subscription, customer, active)
    SELECT s.id, s.customer, s.status IN ('active', 'trialing', 'past_due')
    FROM stripe.subscriptions s
    WHERE s.id = event #>> '{data,object,id}' AND s.customer IS NOT NULL
      AND s.account = coalesce(event ->> 'account', '') AND s.livemode = (event ->> 'livemode')::boolean
    ON CONFLICT (subscription) DO UPDATE SET customer = excluded.customer, active = excluded.active
$$;

-- A credit for each unit paid, exactly once: Tollgate calls it once for each event.
CREATE FUNCTION saas.on_invoice_paid(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _customer text := event #>> '{data,object,customer}';
    _credits bigint := (event #>> '{data,object,amount_paid}')::bigint / 100;
BEGIN
    IF _customer IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO saas.grants VALUES (event ->> 'id', _customer, _credits);
    INSERT INTO saas.accounts AS a (customer, credits) VALUES (_customer, _credits)
    ON CONFLICT (customer) DO UPDATE SET credits = a.credits + excluded.credits;
END
$$;

SELECT tollgate.register_handler('customer.created', 'saas.on_customer(jsonb)'::regprocedure);
SELECT tollgate.register_handler('customer.subscription.*', 'saas.on_subscription(jsonb)'::regprocedure);
SELECT tollgate.register_handler('invoice.paid', 'saas.on_invoice_paid(jsonb)'::regprocedure);

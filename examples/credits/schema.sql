-- A small SaaS: accounts, licences and credits, kept by three handlers in the transaction that
-- records each event. Load it into the gateway's database:
--   tollgate psql -- -f examples/credits/schema.sql

CREATE SCHEMA saas;

-- Ids of Stripe's mean something only together with the account they are of (empty for your own) and
-- the mode: a connected account may choose the id of its customer, and test payments cost nothing.
CREATE TABLE saas.accounts (
    account  text NOT NULL,
    livemode boolean NOT NULL,
    customer text NOT NULL,
    email    text,
    credits  bigint NOT NULL DEFAULT 0 CHECK (credits >= 0),
    PRIMARY KEY (account, livemode, customer)
);

CREATE TABLE saas.licences (
    account      text NOT NULL,
    livemode     boolean NOT NULL,
    subscription text NOT NULL,
    customer     text NOT NULL,
    active       boolean NOT NULL,
    PRIMARY KEY (account, livemode, subscription)
);

-- What a credit costs, in the currency's smallest unit: cents, but whole yen and thousandths of a dinar.
CREATE TABLE saas.prices (
    currency text PRIMARY KEY,
    price    bigint NOT NULL CHECK (price > 0)
);
INSERT INTO saas.prices VALUES ('usd', 100), ('eur', 100), ('jpy', 150), ('kwd', 300);

-- What was granted, and why: the log of the credits.
CREATE TABLE saas.grants (
    event    text PRIMARY KEY,
    customer text NOT NULL,
    credits  bigint NOT NULL
);

-- Events come in any order: an invoice may be paid before its customer is known.
CREATE FUNCTION saas.on_customer(event jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO saas.accounts (account, livemode, customer, email)
    VALUES (coalesce(event ->> 'account', ''), (event ->> 'livemode')::boolean,
            event #>> '{data,object,id}', event #>> '{data,object,email}')
    ON CONFLICT (account, livemode, customer) DO UPDATE SET email = excluded.email
$$;

-- Does not look at the event's own status: a late event may show an old one. With the billing
-- tables on, stripe.subscriptions has the newest, in this same transaction.
CREATE FUNCTION saas.on_subscription(event jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO saas.licences (account, livemode, subscription, customer, active)
    SELECT s.account, s.livemode, s.id, s.customer, s.status IN ('active', 'trialing', 'past_due')
    FROM stripe.subscriptions s
    WHERE s.id = event #>> '{data,object,id}' AND s.customer IS NOT NULL
      AND s.account = coalesce(event ->> 'account', '') AND s.livemode = (event ->> 'livemode')::boolean
    ON CONFLICT (account, livemode, subscription) DO UPDATE SET customer = excluded.customer, active = excluded.active
$$;

-- Credits for what was paid, exactly once: Tollgate calls it once for each event, and where somebody
-- has an event processed again, the grant is there already.
CREATE FUNCTION saas.on_invoice_paid(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _customer text := event #>> '{data,object,customer}';
    _currency text := event #>> '{data,object,currency}';
    _credits bigint;
BEGIN
    IF _customer IS NULL THEN
        RETURN;
    END IF;
    SELECT (event #>> '{data,object,amount_paid}')::bigint / p.price INTO _credits
    FROM saas.prices p WHERE p.currency = _currency;
    IF _credits IS NULL THEN
        -- Nothing is lost: the call is made again, twelve times, and then kept until somebody has set a
        -- price and says `tollgate handlers retry`.
        RAISE EXCEPTION 'a credit has no price in %', coalesce(_currency, 'no currency');
    END IF;
    INSERT INTO saas.grants VALUES (event ->> 'id', _customer, _credits) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO saas.accounts AS a (account, livemode, customer, credits)
    VALUES (coalesce(event ->> 'account', ''), (event ->> 'livemode')::boolean, _customer, _credits)
    ON CONFLICT (account, livemode, customer) DO UPDATE SET credits = a.credits + excluded.credits;
END
$$;

SELECT tollgate.register_handler('customer.created', 'saas.on_customer(jsonb)'::regprocedure);
SELECT tollgate.register_handler('customer.subscription.*', 'saas.on_subscription(jsonb)'::regprocedure);
SELECT tollgate.register_handler('invoice.paid', 'saas.on_invoice_paid(jsonb)'::regprocedure);

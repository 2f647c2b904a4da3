-- The billing tables: what each Stripe object looks like now, by the newest event about it.

DO $$
BEGIN
    IF to_regnamespace('stripe') IS NOT NULL THEN
        RAISE EXCEPTION 'there is a schema stripe already, of a sync engine perhaps, and Tollgate keeps its billing tables in one of that name: rename the other (ALTER SCHEMA stripe RENAME TO stripe_before), or give Tollgate a database of its own';
    END IF;
END
$$;
CREATE SCHEMA stripe;
COMMENT ON SCHEMA stripe IS 'Stripe''s objects as the newest event about each shows them: one table per type, and views for daily questions';

-- Reading JSON -------------------------------------------------------------------------------
-- One rule for all: what is not of the wanted kind is null, and nothing raises, because an error
-- here would cost an event. In PL/pgSQL on purpose. An SQL function is inlined, but anew in every
-- statement and for every column: a table with 24 columns took 530 µs more per statement and 21 µs
-- more per row, against 70 and 12 like this. STRICT spares the call for a missing key.

CREATE FUNCTION stripe.to_text(_json jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN jsonb_typeof(_json) = 'string' THEN _json #>> '{}' END;
END
$$;
COMMENT ON FUNCTION stripe.to_text IS 'A JSON string as text; null for anything else';

CREATE FUNCTION stripe.to_id(_json jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE jsonb_typeof(_json)
        WHEN 'string' THEN CASE WHEN octet_length(_json #>> '{}') BETWEEN 1 AND 255 THEN _json #>> '{}' END
        WHEN 'object' THEN CASE WHEN jsonb_typeof(_json->'id') = 'string' AND octet_length(_json->>'id') BETWEEN 1 AND 255
                                THEN _json->>'id' END END;
END
$$;
COMMENT ON FUNCTION stripe.to_id IS 'The id in a reference, which is a string or an expanded object; null if there is none, or one over 255 bytes, which no index could hold';

CREATE FUNCTION stripe.to_email(_json jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN jsonb_typeof(_json) = 'string' AND length(_json #>> '{}') <= 512 THEN _json #>> '{}' END;
END
$$;
COMMENT ON FUNCTION stripe.to_email IS 'A JSON string of at most 512 characters, Stripe''s limit for addresses, which an index can hold; null for anything else';

CREATE FUNCTION stripe.to_bool(_json jsonb) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN jsonb_typeof(_json) = 'boolean' THEN _json::boolean END;
END
$$;
COMMENT ON FUNCTION stripe.to_bool IS 'A JSON true or false; null for anything else';

CREATE FUNCTION stripe.to_numeric(_json jsonb) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    _number numeric;
BEGIN
    IF jsonb_typeof(_json) = 'number' THEN
        _number := _json::numeric;
    ELSIF jsonb_typeof(_json) = 'string' AND _json #>> '{}' ~ '^-?[0-9]{1,30}(\.[0-9]{1,30})?$' THEN
        _number := (_json #>> '{}')::numeric;
    END IF;
    RETURN CASE WHEN _number BETWEEN -1e18 AND 1e18 AND scale(_number) <= 30 THEN _number END;
END
$$;
COMMENT ON FUNCTION stripe.to_numeric IS 'A JSON number, or a string of one, with its fraction; null for anything else, and beyond 10^18 or 30 decimals, so that one can calculate with it';

CREATE FUNCTION stripe.fit(_number numeric) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN _number BETWEEN -9223372036854775808 AND 9223372036854775807 THEN _number::bigint END;
END
$$;
COMMENT ON FUNCTION stripe.fit IS 'Rounded to a bigint; null if it does not fit into one';

CREATE FUNCTION stripe.to_bigint(_json jsonb) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE jsonb_typeof(_json)
        WHEN 'number' THEN CASE WHEN _json::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
                                     AND min_scale(_json::numeric) = 0 THEN _json::bigint END
        WHEN 'string' THEN CASE WHEN _json #>> '{}' ~ '^-?[0-9]{1,18}$' THEN (_json #>> '{}')::bigint END END;
END
$$;
COMMENT ON FUNCTION stripe.to_bigint IS 'A whole JSON number, or a string of up to 18 digits; null for anything else, for fractions and for what no bigint holds';

CREATE FUNCTION stripe.to_time(_json jsonb) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE jsonb_typeof(_json)
        WHEN 'number' THEN CASE WHEN _json::numeric >= 0 AND _json::numeric < 253402300799
                                THEN to_timestamp(trunc(_json::numeric, 6)::double precision) END
        WHEN 'string' THEN CASE WHEN _json #>> '{}' ~ '^[0-9]{1,11}$' THEN to_timestamp((_json #>> '{}')::double precision) END END;
END
$$;
COMMENT ON FUNCTION stripe.to_time IS 'Unix seconds, as a JSON number or a string of digits, from 1970 to 9999; null for anything else';

CREATE FUNCTION stripe.items(_json jsonb) RETURNS SETOF jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 5
    BEGIN ATOMIC
        SELECT e.value
        FROM jsonb_array_elements(CASE WHEN jsonb_typeof(_json) = 'array' THEN _json
                                       WHEN jsonb_typeof(_json->'data') = 'array' THEN _json->'data' END) e
        WHERE jsonb_typeof(e.value) = 'object';
    END;
COMMENT ON FUNCTION stripe.items IS 'The objects in a JSON array or in one of Stripe''s lists ({"object":"list","data":[…]}); no rows for anything else. Stripe may cut a list short, which then says has_more';

CREATE FUNCTION stripe.earliest(_list jsonb, _key text) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF _list #> '{data,1}' IS NULL THEN
        RETURN stripe.to_time(_list #> ARRAY['data', '0', _key]);
    END IF;
    RETURN (SELECT min(stripe.to_time(i->_key)) FROM stripe.items(_list) i);
END
$$;
COMMENT ON FUNCTION stripe.earliest IS 'The earliest of the times that the objects of a list have under a key; null if there are none';

CREATE FUNCTION stripe.latest(_list jsonb, _key text) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF _list #> '{data,1}' IS NULL THEN
        RETURN stripe.to_time(_list #> ARRAY['data', '0', _key]);
    END IF;
    RETURN (SELECT max(stripe.to_time(i->_key)) FROM stripe.items(_list) i);
END
$$;
COMMENT ON FUNCTION stripe.latest IS 'The latest of the times that the objects of a list have under a key; null if there are none';

CREATE FUNCTION stripe.total(_list jsonb, _key text) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(_list) IS DISTINCT FROM 'array' OR _list->0 IS NULL THEN
        RETURN NULL;
    ELSIF _list->1 IS NULL THEN
        RETURN stripe.to_bigint(_list->0->_key);
    END IF;
    RETURN (SELECT stripe.fit(sum(stripe.to_bigint(i->_key))) FROM stripe.items(_list) i);
END
$$;
COMMENT ON FUNCTION stripe.total IS 'The sum of the amounts that the objects of an array have under a key; null if there are none';

-- Tables -------------------------------------------------------------------------------------
-- All have the same columns for the machine, and beside them columns generated from `object`, so
-- that one statement can write any of them. No foreign keys: children arrive before parents.
-- Never write `object` from a stored column (INSERT … SELECT object FROM a table): every generated
-- column would decompress it again, which is 250 µs per invoice instead of 20. Through ::text::jsonb
-- it is decompressed once. ON CONFLICT DO UPDATE computes them twice, before and after it finds the
-- conflict; UPDATE once, and only those of columns that it sets.

DO $$
DECLARE
    _table text;
    _lz4   boolean := EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals));
    _name  text;
    _about text;
BEGIN
    FOREACH _table IN ARRAY ARRAY['customers', 'products', 'prices', 'plans', 'coupons', 'subscriptions', 'invoices',
        'invoice_payments', 'payment_intents', 'charges', 'refunds', 'disputes', 'checkout_sessions', 'payment_methods',
        'setup_intents', 'credit_notes', 'payouts', 'tax_ids', 'subscription_schedules', 'active_entitlements', 'objects'] LOOP
        EXECUTE format($sql$
            CREATE TABLE stripe.%1$I (
                account     text COLLATE "C" NOT NULL,
                livemode    boolean NOT NULL,
                %3$s
                id          text COLLATE "C" NOT NULL,
                incarnation bigint NOT NULL,
                phase       smallint NOT NULL,
                as_of       timestamptz NOT NULL,
                as_of_event text COLLATE "C" NOT NULL,
                order_basis text NOT NULL,
                rests_on_base boolean NOT NULL,
                api_version text COLLATE "C",
                deleted     boolean NOT NULL,
                links       jsonb NOT NULL,
                object      jsonb NOT NULL,
                PRIMARY KEY (account, livemode, %4$s id),
                CONSTRAINT %2$I CHECK (
                    phase BETWEEN 0 AND 3
                    AND order_basis IN ('unique', 'same', 'chain', 'pairwise', 'rank', 'tiebreak'))
            )$sql$, _table, _table || '_well_formed',
            CASE _table WHEN 'objects' THEN 'object_type text COLLATE "C" NOT NULL,' END,
            CASE _table WHEN 'objects' THEN 'object_type,' END);
        IF _lz4 THEN
            EXECUTE format('ALTER TABLE stripe.%I ALTER COLUMN object SET COMPRESSION lz4', _table);
        END IF;
        FOR _name, _about IN VALUES
            ('account', 'The connected account it belongs to; empty for the platform''s own'),
            ('livemode', 'True for live, false for test data'),
            ('id', CASE _table WHEN 'active_entitlements' THEN 'The customer''s id; the summary has none of its own'
                   ELSE 'Stripe''s id of the object' END),
            ('incarnation', 'For ids that the caller may choose and use again: when this bearer of the id was created, in Unix seconds. Otherwise 0'),
            ('phase', '0 just created, 1 in use, 2 final (no later event counts), 3 deleted'),
            ('as_of', 'When Stripe made the event that the row shows'),
            ('as_of_event', 'The id of that event'),
            ('order_basis', 'How that event was told to be the newest: unique (no other has its second), same (others of that second say the same), chain and pairwise (by previous_attributes), rank (by the object''s life cycle), tiebreak (by nothing but event ids: see stripe.order_ties)'),
            ('rests_on_base', 'Whether older events could still change which one is the newest: those of its second lead back to where they began'),
            ('api_version', 'The Stripe API version the object is rendered in; null in very old events'),
            ('deleted', 'True once Stripe deleted the object; the row stays as a tombstone'),
            ('links', 'References that an earlier event had and that this API version no longer shows, for example {"charge":"ch_…"}'),
            ('object', 'The whole object as the event shows it; \u0000 in strings is replaced by \ufffd. Metadata: object->''metadata''')
        LOOP
            EXECUTE format('COMMENT ON COLUMN stripe.%I.%I IS %L', _table, _name, _about);
        END LOOP;
    END LOOP;
END
$$;

-- Generated columns --------------------------------------------------------------------------
-- One column means one thing in every API version: where Stripe moved or renamed something, the
-- places are tried one after the other. Null is what a version does not say.
-- Each line is: name, type, what generates it, what the comment says. A later migration adds a
-- column with a plain ALTER TABLE.

CREATE PROCEDURE stripe.define(_table regclass, _about text, _columns text) LANGUAGE plpgsql AS $$
DECLARE
    _line   text := '(\S+) +(\w+) = ((?:(?! -- ).)+) -- ([^\n]+)\n';
    _column text[];
    _add    text;
BEGIN
    SELECT string_agg(format('ADD COLUMN %s %s GENERATED ALWAYS AS (%s) STORED',
                             m[1], CASE m[2] WHEN 'id' THEN 'text COLLATE "C"' ELSE m[2] END, m[3]), ', ')
    INTO _add FROM regexp_matches(_columns, _line, 'g') m;
    EXECUTE format('ALTER TABLE %s %s', _table, _add);
    EXECUTE format('COMMENT ON TABLE %s IS %L', _table, _about);
    FOR _column IN SELECT regexp_matches(_columns, _line, 'g') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%s IS %L', _table, _column[1], _column[4]);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE stripe.define IS 'Adds generated columns and their comments; used in this file only';

CALL stripe.define('stripe.customers', 'People and companies that buy', $$
    email                  text = stripe.to_email(object->'email') -- Their address; null if over 512 characters
    name                   text = stripe.to_text(object->'name') -- Their name; since 2018
    description            text = stripe.to_text(object->'description') -- A note of yours
    phone                  text = stripe.to_text(object->'phone') -- Their telephone number
    country                text = stripe.to_text(object #> '{address,country}') -- Two letters, from their address
    currency               text = stripe.to_text(object->'currency') -- What they are billed in, three letters; null before the first bill
    balance                bigint = COALESCE(stripe.to_bigint(object->'balance'), stripe.to_bigint(object->'account_balance')) -- Minor units: negative is credit, positive is added to the next invoice. Before 2019-10 account_balance
    delinquent             boolean = stripe.to_bool(object->'delinquent') -- True while their latest invoice is unpaid
    default_payment_method id = stripe.to_id(object #> '{invoice_settings,default_payment_method}') -- Pays their invoices unless these say otherwise, pm_…
    default_source         id = COALESCE(stripe.to_id(object->'default_source'),
        stripe.to_id(object->'default_card'),
        stripe.to_id(object->'active_card')) -- The older kind of default, card_… or src_…; until 2015 default_card, before that active_card
    coupon                 id = COALESCE(stripe.to_id(object #> '{discount,coupon}'), stripe.to_id(object #> '{discount,source,coupon}')) -- The coupon of the customer's own discount; since clover below discount.source
    tax_exempt             text = stripe.to_text(object->'tax_exempt') -- none, exempt or reverse
    created                timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.products', 'What is sold', $$
    name          text = stripe.to_text(object->'name') -- What customers read
    active        boolean = stripe.to_bool(object->'active') -- True while it can be bought
    type          text = stripe.to_text(object->'type') -- good or service
    description   text = stripe.to_text(object->'description') -- What customers read below the name
    default_price id = stripe.to_id(object->'default_price') -- The price used where none is named; since 2022
    tax_code      id = stripe.to_id(object->'tax_code') -- Stripe's tax category, txcd_…
    unit_label    text = stripe.to_text(object->'unit_label') -- What one of it is called, for example seat
    created       timestamptz = stripe.to_time(object->'created') -- When it was created
    updated       timestamptz = stripe.to_time(object->'updated') -- When it was last changed
$$);

CALL stripe.define('stripe.prices', 'What a product costs, once or again and again', $$
    product             id = stripe.to_id(object->'product') -- The product it is for
    active              boolean = stripe.to_bool(object->'active') -- True while it can be bought
    type                text = stripe.to_text(object->'type') -- one_time or recurring
    currency            text = stripe.to_text(object->'currency') -- Three letters
    unit_amount         bigint = stripe.to_bigint(object->'unit_amount') -- Minor units for one; null if tiered, chosen by the customer, or a fraction
    unit_amount_decimal numeric = stripe.to_numeric(object->'unit_amount_decimal') -- The same with fractions of a minor unit
    billing_scheme      text = stripe.to_text(object->'billing_scheme') -- per_unit or tiered
    tiers_mode          text = stripe.to_text(object->'tiers_mode') -- graduated or volume, if tiered
    "interval"          text = stripe.to_text(object #> '{recurring,interval}') -- day, week, month or year; null if one_time
    interval_count      bigint = stripe.to_bigint(object #> '{recurring,interval_count}') -- Billed every so many intervals
    usage_type          text = stripe.to_text(object #> '{recurring,usage_type}') -- licensed (by quantity) or metered (by use)
    meter               id = stripe.to_id(object #> '{recurring,meter}') -- What counts the use, mtr_…
    lookup_key          text = stripe.to_text(object->'lookup_key') -- Your own name for it
    nickname            text = stripe.to_text(object->'nickname') -- A note of yours
    tax_behavior        text = stripe.to_text(object->'tax_behavior') -- inclusive, exclusive or unspecified
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.plans', 'What a subscription costs, in the form before prices; Stripe still keeps one for each recurring price', $$
    product           id = stripe.to_id(object->'product') -- The product it is for; since 2018-02
    active            boolean = stripe.to_bool(object->'active') -- True while it can be subscribed to; since 2018
    currency          text = stripe.to_text(object->'currency') -- Three letters
    amount            bigint = stripe.to_bigint(object->'amount') -- Minor units for one; null if tiered or a fraction
    amount_decimal    numeric = stripe.to_numeric(object->'amount_decimal') -- The same with fractions of a minor unit
    "interval"        text = stripe.to_text(object->'interval') -- day, week, month or year
    interval_count    bigint = stripe.to_bigint(object->'interval_count') -- Billed every so many intervals
    usage_type        text = stripe.to_text(object->'usage_type') -- licensed (by quantity) or metered (by use); null before 2018, when all were licensed
    billing_scheme    text = stripe.to_text(object->'billing_scheme') -- per_unit or tiered
    trial_period_days bigint = stripe.to_bigint(object->'trial_period_days') -- Days of trial that a subscription begins with
    meter             id = stripe.to_id(object->'meter') -- What counts the use, mtr_…
    nickname          text = COALESCE(stripe.to_text(object->'nickname'), stripe.to_text(object->'name')) -- A note of yours; before 2018-02 the plan's name
    created           timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.coupons', 'Reductions, redeemed as discounts', $$
    name               text = stripe.to_text(object->'name') -- What customers read
    percent_off        numeric = stripe.to_numeric(object->'percent_off') -- Percent, 0 to 100; null if an amount
    amount_off         bigint = stripe.to_bigint(object->'amount_off') -- Minor units; null if a percentage
    currency           text = stripe.to_text(object->'currency') -- Of amount_off
    duration           text = stripe.to_text(object->'duration') -- once, repeating or forever
    duration_in_months bigint = stripe.to_bigint(object->'duration_in_months') -- How long, if repeating
    max_redemptions    bigint = stripe.to_bigint(object->'max_redemptions') -- How often it may be redeemed by all together
    times_redeemed     bigint = stripe.to_bigint(object->'times_redeemed') -- How often it was, when the event was made
    redeem_by          timestamptz = stripe.to_time(object->'redeem_by') -- Until when it may be redeemed
    valid              boolean = stripe.to_bool(object->'valid') -- True while it may be redeemed
    created            timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.subscriptions', 'Who subscribes to what. Their items: stripe.subscription_items', $$
    customer               id = stripe.to_id(object->'customer') -- Who pays
    status                 text = stripe.to_text(object->'status') -- incomplete, incomplete_expired, trialing, active, past_due, unpaid, paused or canceled
    collection_method      text = COALESCE(stripe.to_text(object->'collection_method'), stripe.to_text(object->'billing')) -- charge_automatically or send_invoice; before 2019-10 billing
    currency               text = COALESCE(stripe.to_text(object->'currency'),
        stripe.to_text(object #> '{items,data,0,price,currency}'),
        stripe.to_text(object #> '{items,data,0,plan,currency}'),
        stripe.to_text(object #> '{plan,currency}')) -- Three letters; before 2022-11 from the first item or the plan
    price                  id = COALESCE(stripe.to_id(object #> '{items,data,0,price}'),
        stripe.to_id(object #> '{items,data,0,plan}'),
        stripe.to_id(object->'plan')) -- The price or plan of the first item; before 2016-07 plan. All items: stripe.subscription_items
    product                id = COALESCE(stripe.to_id(object #> '{items,data,0,price,product}'),
        stripe.to_id(object #> '{items,data,0,plan,product}'),
        stripe.to_id(object #> '{plan,product}')) -- The product of that price
    quantity               bigint = COALESCE(stripe.to_bigint(object->'quantity'), stripe.to_bigint(object #> '{items,data,0,quantity}')) -- How many; if there are several items, of the first
    current_period_start   timestamptz = COALESCE(stripe.to_time(object->'current_period_start'),
        stripe.latest(object->'items', 'current_period_start')) -- Start of the period that was billed last; since basil on each item, then the latest
    current_period_end     timestamptz = COALESCE(stripe.to_time(object->'current_period_end'),
        stripe.earliest(object->'items', 'current_period_end')) -- When it renews; since basil on each item, then the earliest
    cancel_at_period_end   boolean = stripe.to_bool(object->'cancel_at_period_end') -- True if it ends instead of renewing
    cancel_at              timestamptz = stripe.to_time(object->'cancel_at') -- When it will end
    canceled_at            timestamptz = stripe.to_time(object->'canceled_at') -- When it was cancelled, though it may run until its period ends
    ended_at               timestamptz = stripe.to_time(object->'ended_at') -- When it ended
    trial_start            timestamptz = stripe.to_time(object->'trial_start') -- Start of the trial
    trial_end              timestamptz = stripe.to_time(object->'trial_end') -- End of the trial
    pause_collection       text = stripe.to_text(object #> '{pause_collection,behavior}') -- keep_as_draft, mark_uncollectible or void while its invoices are not collected; otherwise null
    latest_invoice         id = stripe.to_id(object->'latest_invoice') -- The newest invoice
    default_payment_method id = stripe.to_id(object->'default_payment_method') -- Pays its invoices, before the customer's default
    schedule               id = stripe.to_id(object->'schedule') -- The schedule that steers it, sub_sched_…
    coupon                 id = COALESCE(stripe.to_id(object #> '{discount,coupon}'),
        stripe.to_id(object #> '{discount,source,coupon}'),
        stripe.to_id(object #> '{discounts,0,coupon}'),
        stripe.to_id(object #> '{discounts,0,source,coupon}')) -- The coupon of the first discount of its own; since basil null unless discounts is expanded
    start_date             timestamptz = COALESCE(stripe.to_time(object->'start_date'), stripe.to_time(object->'start')) -- When it began; before 2019-10 start
    created                timestamptz = stripe.to_time(object->'created') -- When it was created; null in very old versions
$$);

CALL stripe.define('stripe.invoices', 'What is owed and was paid. Their lines: stripe.invoice_lines', $$
    customer             id = stripe.to_id(object->'customer') -- Who pays
    customer_email       text = stripe.to_text(object->'customer_email') -- Their address when the invoice was finalized
    customer_name        text = stripe.to_text(object->'customer_name') -- Their name then
    subscription         id = COALESCE(stripe.to_id(object->'subscription'), stripe.to_id(object #> '{parent,subscription_details,subscription}')) -- The subscription it bills; since basil below parent
    status               text = COALESCE(stripe.to_text(object->'status'),
        CASE WHEN stripe.to_bool(object->'paid') THEN 'paid'
        WHEN stripe.to_bool(object->'forgiven') THEN 'uncollectible'
        WHEN stripe.to_bool(object->'attempted') AND NOT stripe.to_bool(object->'closed') THEN 'open' END) -- draft, open, paid, uncollectible or void. Before 2018-11 there was none: then by paid, forgiven (uncollectible), attempted and not closed (open), and null if these do not tell
    paid                 boolean = COALESCE(stripe.to_bool(object->'paid'), stripe.to_text(object->'status') = 'paid') -- True once nothing is owed; since basil from status
    number               text = stripe.to_text(object->'number') -- The number customers read; null for drafts
    billing_reason       text = stripe.to_text(object->'billing_reason') -- Why it was made, for example subscription_cycle or manual
    collection_method    text = COALESCE(stripe.to_text(object->'collection_method'), stripe.to_text(object->'billing')) -- charge_automatically or send_invoice; before 2019-10 billing
    currency             text = stripe.to_text(object->'currency') -- Three letters
    amount_due           bigint = stripe.to_bigint(object->'amount_due') -- Minor units to be paid
    amount_paid          bigint = stripe.to_bigint(object->'amount_paid') -- Minor units paid; since 2018
    amount_remaining     bigint = stripe.to_bigint(object->'amount_remaining') -- Minor units still to be paid; since 2018
    subtotal             bigint = stripe.to_bigint(object->'subtotal') -- Minor units before discounts and exclusive taxes
    tax                  bigint = COALESCE(stripe.to_bigint(object->'tax'),
        stripe.total(object->'total_taxes', 'amount'),
        stripe.total(object->'total_tax_amounts', 'amount')) -- Minor units of tax, null if none; since basil the sum over total_taxes
    total                bigint = stripe.to_bigint(object->'total') -- Minor units after discounts and taxes
    payment_intent       id = COALESCE(stripe.to_id(object->'payment_intent'),
        stripe.to_id(links->'payment_intent'),
        stripe.to_id(object #> '{payments,data,0,payment,payment_intent}')) -- The payment; since basil what an earlier event said, or payments if it is expanded. Always: stripe.invoice_payments
    charge               id = COALESCE(stripe.to_id(object->'charge'),
        stripe.to_id(links->'charge'),
        stripe.to_id(object #> '{payments,data,0,payment,charge}')) -- The latest charge; since basil as payment_intent
    attempt_count        bigint = stripe.to_bigint(object->'attempt_count') -- How often payment was tried automatically
    next_payment_attempt timestamptz = stripe.to_time(object->'next_payment_attempt') -- When it will be tried again
    due_date             timestamptz = stripe.to_time(object->'due_date') -- When it is due, if it is sent
    period_start         timestamptz = stripe.to_time(object->'period_start') -- Start of the time in which its items were added; a line has its own
    period_end           timestamptz = stripe.to_time(object->'period_end') -- End of it
    paid_at              timestamptz = stripe.to_time(object #> '{status_transitions,paid_at}') -- When it was paid; since 2019-05
    created              timestamptz = COALESCE(stripe.to_time(object->'created'), stripe.to_time(object->'date')) -- When it was created; before 2019-03 date
$$);

CALL stripe.define('stripe.invoice_payments', 'Which payment pays which invoice; since basil', $$
    invoice          id = stripe.to_id(object->'invoice') -- The invoice
    payment_intent   id = stripe.to_id(object #> '{payment,payment_intent}') -- The payment that pays it
    charge           id = stripe.to_id(object #> '{payment,charge}') -- The charge that pays it, where no payment intent does
    status           text = stripe.to_text(object->'status') -- open, paid or canceled
    currency         text = stripe.to_text(object->'currency') -- Three letters
    amount_paid      bigint = stripe.to_bigint(object->'amount_paid') -- Minor units paid
    amount_requested bigint = stripe.to_bigint(object->'amount_requested') -- Minor units asked for
    is_default       boolean = stripe.to_bool(object->'is_default') -- True for the payment that the invoice itself made
    paid_at          timestamptz = stripe.to_time(object #> '{status_transitions,paid_at}') -- When it paid
    created          timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.payment_intents', 'Payments, from the attempt to the money', $$
    customer            id = stripe.to_id(object->'customer') -- Who pays
    status              text = CASE stripe.to_text(object->'status')
        WHEN 'requires_source' THEN 'requires_payment_method'
        WHEN 'requires_source_action' THEN 'requires_action'
        ELSE stripe.to_text(object->'status') END -- requires_payment_method, requires_confirmation, requires_action, processing, requires_capture, succeeded or canceled; the names before 2019-02 are translated
    currency            text = stripe.to_text(object->'currency') -- Three letters
    amount              bigint = stripe.to_bigint(object->'amount') -- Minor units meant to be paid
    amount_capturable   bigint = stripe.to_bigint(object->'amount_capturable') -- Minor units that may be captured
    amount_received     bigint = stripe.to_bigint(object->'amount_received') -- Minor units paid
    description         text = stripe.to_text(object->'description') -- A note of yours
    invoice             id = COALESCE(stripe.to_id(object->'invoice'), stripe.to_id(links->'invoice')) -- The invoice it pays; since basil what an earlier event said, else see stripe.invoice_payments
    latest_charge       id = COALESCE(stripe.to_id(object->'latest_charge'), stripe.to_id(object #> '{charges,data,0}')) -- The newest charge; before 2022-11 the first of charges
    payment_method      id = COALESCE(stripe.to_id(object->'payment_method'), stripe.to_id(object->'source')) -- What pays; in very old versions source
    receipt_email       text = stripe.to_text(object->'receipt_email') -- Where the receipt goes
    capture_method      text = stripe.to_text(object->'capture_method') -- automatic, automatic_async or manual
    setup_future_usage  text = stripe.to_text(object->'setup_future_usage') -- on_session or off_session, if what pays is kept for later
    last_error_code     text = stripe.to_text(object #> '{last_payment_error,code}') -- Why the last attempt failed, for example card_declined
    last_decline_code   text = stripe.to_text(object #> '{last_payment_error,decline_code}') -- What the bank said, for example insufficient_funds
    last_error_message  text = stripe.to_text(object #> '{last_payment_error,message}') -- The same in words
    cancellation_reason text = stripe.to_text(object->'cancellation_reason') -- Why it was cancelled
    canceled_at         timestamptz = stripe.to_time(object->'canceled_at') -- When it was cancelled
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.charges', 'Single attempts to move money', $$
    customer            id = stripe.to_id(object->'customer') -- Who pays
    payment_intent      id = stripe.to_id(object->'payment_intent') -- The payment it is an attempt at
    invoice             id = COALESCE(stripe.to_id(object->'invoice'), stripe.to_id(links->'invoice')) -- The invoice it pays; since basil what an earlier event said, else see stripe.invoice_payments
    status              text = CASE stripe.to_text(object->'status')
        WHEN 'paid' THEN 'succeeded'
        ELSE COALESCE(stripe.to_text(object->'status'),
        CASE WHEN stripe.to_bool(object->'paid') THEN 'succeeded'
        WHEN stripe.to_text(object->'failure_message') <> '' OR stripe.to_text(object->'failure_code') <> '' THEN 'failed' END) END -- succeeded, pending or failed; before 2015-02 from paid and the failure
    currency            text = stripe.to_text(object->'currency') -- Three letters
    amount              bigint = stripe.to_bigint(object->'amount') -- Minor units
    amount_captured     bigint = stripe.to_bigint(object->'amount_captured') -- Minor units captured; since 2020
    amount_refunded     bigint = stripe.to_bigint(object->'amount_refunded') -- Minor units refunded
    paid                boolean = stripe.to_bool(object->'paid') -- True if it succeeded or was authorized
    captured            boolean = stripe.to_bool(object->'captured') -- False while it is only authorized
    refunded            boolean = stripe.to_bool(object->'refunded') -- True once refunded in full
    disputed            boolean = COALESCE(stripe.to_bool(object->'disputed'),
        CASE WHEN object ? 'dispute' THEN jsonb_typeof(object->'dispute') IN ('string', 'object') END) -- True once disputed, however it ended; before 2020 from dispute
    dispute             id = stripe.to_id(object->'dispute') -- Its dispute; null in newer versions, see stripe.disputes
    failure_code        text = stripe.to_text(object->'failure_code') -- Why it failed, for example card_declined
    failure_message     text = stripe.to_text(object->'failure_message') -- The same in words
    payment_method      id = COALESCE(stripe.to_id(object->'payment_method'), stripe.to_id(object->'source'), stripe.to_id(object->'card')) -- What pays, pm_…; before 2019 source, before 2015-02 card
    balance_transaction id = stripe.to_id(object->'balance_transaction') -- What it did to your balance, txn_…
    description         text = stripe.to_text(object->'description') -- A note of yours
    receipt_email       text = stripe.to_text(object->'receipt_email') -- Where the receipt goes
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.refunds', 'Money given back', $$
    charge              id = stripe.to_id(object->'charge') -- The charge given back
    payment_intent      id = stripe.to_id(object->'payment_intent') -- Its payment
    status              text = stripe.to_text(object->'status') -- pending, requires_action, succeeded, failed or canceled
    currency            text = stripe.to_text(object->'currency') -- Three letters
    amount              bigint = stripe.to_bigint(object->'amount') -- Minor units
    reason              text = stripe.to_text(object->'reason') -- duplicate, fraudulent, requested_by_customer or expired_uncaptured_charge
    failure_reason      text = stripe.to_text(object->'failure_reason') -- Why it failed
    balance_transaction id = stripe.to_id(object->'balance_transaction') -- What it did to your balance, txn_…
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.disputes', 'Charges that a customer contests at the bank', $$
    charge               id = stripe.to_id(object->'charge') -- The contested charge
    payment_intent       id = stripe.to_id(object->'payment_intent') -- Its payment; since 2020
    status               text = stripe.to_text(object->'status') -- needs_response, under_review, won or lost; the same with warning_ before for inquiries, then also warning_closed
    reason               text = stripe.to_text(object->'reason') -- For example fraudulent or product_not_received
    currency             text = stripe.to_text(object->'currency') -- Three letters
    amount               bigint = stripe.to_bigint(object->'amount') -- Minor units contested
    is_charge_refundable boolean = stripe.to_bool(object->'is_charge_refundable') -- True while a refund can still settle it
    evidence_due_by      timestamptz = COALESCE(stripe.to_time(object #> '{evidence_details,due_by}'), stripe.to_time(object->'evidence_due_by')) -- Until when to answer; in very old versions evidence_due_by
    created              timestamptz = stripe.to_time(object->'created') -- When it was opened
$$);

CALL stripe.define('stripe.checkout_sessions', 'Visits to Stripes payment page', $$
    customer            id = stripe.to_id(object->'customer') -- Who pays
    customer_email      text = COALESCE(stripe.to_text(object #> '{customer_details,email}'), stripe.to_text(object->'customer_email')) -- The address they gave, else the one you gave
    client_reference_id text = stripe.to_text(object->'client_reference_id') -- Your own reference
    mode                text = stripe.to_text(object->'mode') -- payment, setup or subscription; null before 2019-09 without one
    status              text = stripe.to_text(object->'status') -- open, complete or expired; since 2021
    payment_status      text = stripe.to_text(object->'payment_status') -- paid, unpaid or no_payment_required
    currency            text = stripe.to_text(object->'currency') -- Three letters
    amount_subtotal     bigint = stripe.to_bigint(object->'amount_subtotal') -- Minor units before discounts and taxes; since 2020
    amount_total        bigint = stripe.to_bigint(object->'amount_total') -- Minor units after them; since 2020
    payment_intent      id = stripe.to_id(object->'payment_intent') -- The payment it made
    setup_intent        id = stripe.to_id(object->'setup_intent') -- The setup it made
    subscription        id = stripe.to_id(object->'subscription') -- The subscription it made
    invoice             id = stripe.to_id(object->'invoice') -- The invoice it made
    payment_link        id = stripe.to_id(object->'payment_link') -- The payment link that led to it
    expires_at          timestamptz = stripe.to_time(object->'expires_at') -- Until when it may be used
    created             timestamptz = stripe.to_time(object->'created') -- When it was created; since 2021
$$);

CALL stripe.define('stripe.payment_methods', 'Cards and other things to pay with', $$
    customer         id = stripe.to_id(object->'customer') -- Whom it belongs to; null if it is attached to nobody
    type             text = stripe.to_text(object->'type') -- card, sepa_debit and so on
    card_brand       text = stripe.to_text(object #> '{card,brand}') -- For example visa
    card_last4       text = stripe.to_text(object #> '{card,last4}') -- The last four digits
    card_exp_month   bigint = stripe.to_bigint(object #> '{card,exp_month}') -- Month in which it expires, 1 to 12
    card_exp_year    bigint = stripe.to_bigint(object #> '{card,exp_year}') -- Year in which it expires
    card_fingerprint text = stripe.to_text(object #> '{card,fingerprint}') -- The same for the same card number
    email            text = stripe.to_text(object #> '{billing_details,email}') -- The holder's address
    name             text = stripe.to_text(object #> '{billing_details,name}') -- The holder's name
    created          timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.setup_intents', 'Attempts to keep something to pay with for later', $$
    customer            id = stripe.to_id(object->'customer') -- Whom it is for
    status              text = CASE stripe.to_text(object->'status')
        WHEN 'requires_source' THEN 'requires_payment_method'
        WHEN 'requires_source_action' THEN 'requires_action'
        ELSE stripe.to_text(object->'status') END -- requires_payment_method, requires_confirmation, requires_action, processing, succeeded or canceled
    payment_method      id = stripe.to_id(object->'payment_method') -- What is kept
    usage               text = stripe.to_text(object->'usage') -- on_session or off_session
    latest_attempt      id = stripe.to_id(object->'latest_attempt') -- The newest attempt, setatt_…
    mandate             id = stripe.to_id(object->'mandate') -- The customer's permission, mandate_…
    last_error_code     text = stripe.to_text(object #> '{last_setup_error,code}') -- Why the last attempt failed
    cancellation_reason text = stripe.to_text(object->'cancellation_reason') -- Why it was cancelled
    description         text = stripe.to_text(object->'description') -- A note of yours
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.credit_notes', 'What was taken off an invoice after the fact', $$
    customer  id = stripe.to_id(object->'customer') -- Who gets it
    invoice   id = stripe.to_id(object->'invoice') -- The invoice it reduces
    number    text = stripe.to_text(object->'number') -- The number customers read
    status    text = stripe.to_text(object->'status') -- issued or void
    type      text = stripe.to_text(object->'type') -- pre_payment, post_payment or mixed
    reason    text = stripe.to_text(object->'reason') -- duplicate, fraudulent, order_change or product_unsatisfactory
    currency  text = stripe.to_text(object->'currency') -- Three letters
    amount    bigint = stripe.to_bigint(object->'amount') -- Minor units with taxes
    subtotal  bigint = stripe.to_bigint(object->'subtotal') -- Minor units without discounts and exclusive taxes
    total     bigint = stripe.to_bigint(object->'total') -- Minor units after them
    refund    id = COALESCE(stripe.to_id(object->'refund'), stripe.to_id(object #> '{refunds,0,refund}')) -- The refund that came with it; since basil the first of refunds
    memo      text = stripe.to_text(object->'memo') -- What customers read
    voided_at timestamptz = stripe.to_time(object->'voided_at') -- When it was voided
    created   timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.payouts', 'Money that Stripe sends to your bank; before 2017-04 such things were transfers, which stay in stripe.objects', $$
    status               text = stripe.to_text(object->'status') -- pending, in_transit, paid, failed or canceled
    type                 text = stripe.to_text(object->'type') -- bank_account or card
    method               text = stripe.to_text(object->'method') -- standard or instant
    currency             text = stripe.to_text(object->'currency') -- Three letters
    amount               bigint = stripe.to_bigint(object->'amount') -- Minor units; negative if taken from the bank
    arrival_date         timestamptz = COALESCE(stripe.to_time(object->'arrival_date'), stripe.to_time(object->'date')) -- The day it should arrive
    automatic            boolean = stripe.to_bool(object->'automatic') -- True if Stripe's timetable made it; since 2018
    destination          id = stripe.to_id(object->'destination') -- The bank account or card
    balance_transaction  id = stripe.to_id(object->'balance_transaction') -- What it did to your balance, txn_…
    statement_descriptor text = stripe.to_text(object->'statement_descriptor') -- What stands on the bank statement
    failure_code         text = stripe.to_text(object->'failure_code') -- Why it failed
    failure_message      text = stripe.to_text(object->'failure_message') -- The same in words
    created              timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.tax_ids', 'Tax numbers of customers', $$
    customer            id = COALESCE(stripe.to_id(object->'customer'), stripe.to_id(object #> '{owner,customer}')) -- Whose it is
    type                text = stripe.to_text(object->'type') -- For example eu_vat
    value               text = stripe.to_text(object->'value') -- The number
    country             text = stripe.to_text(object->'country') -- Two letters
    verification_status text = stripe.to_text(object #> '{verification,status}') -- pending, verified, unverified or unavailable
    created             timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.subscription_schedules', 'Changes to subscriptions, planned ahead', $$
    customer              id = stripe.to_id(object->'customer') -- Who pays
    subscription          id = stripe.to_id(object->'subscription') -- The subscription it steers
    released_subscription id = stripe.to_id(object->'released_subscription') -- The one it steered until it was released
    status                text = stripe.to_text(object->'status') -- not_started, active, completed, released or canceled
    end_behavior          text = COALESCE(stripe.to_text(object->'end_behavior'), stripe.to_text(object->'renewal_behavior')) -- What comes after the last phase: release, cancel or renew; before 2019-10 renewal_behavior
    current_phase_start   timestamptz = stripe.to_time(object #> '{current_phase,start_date}') -- Start of the phase it is in
    current_phase_end     timestamptz = stripe.to_time(object #> '{current_phase,end_date}') -- End of it
    released_at           timestamptz = stripe.to_time(object->'released_at') -- When it was released
    canceled_at           timestamptz = stripe.to_time(object->'canceled_at') -- When it was cancelled
    completed_at          timestamptz = stripe.to_time(object->'completed_at') -- When it was completed
    created               timestamptz = stripe.to_time(object->'created') -- When it was created
$$);

CALL stripe.define('stripe.active_entitlements', 'What each customer may use now, as one summary. One row for each feature: stripe.customer_entitlements', $$
    customer id = stripe.to_id(object->'customer') -- The customer
    has_more boolean = stripe.to_bool(object #> '{entitlements,has_more}') -- True if Stripe cut the list short
$$);

CALL stripe.define('stripe.objects', 'Objects of every other type', $$
    customer id = stripe.to_id(object->'customer') -- The customer it names
    status   text = stripe.to_text(object->'status') -- Its status, in the words of its type
    type     text = stripe.to_text(object->'type') -- Its type within the object type
    currency text = stripe.to_text(object->'currency') -- Three letters
    amount   bigint = stripe.to_bigint(object->'amount') -- Minor units
    created  timestamptz = COALESCE(stripe.to_time(object->'created'), stripe.to_time(object->'date')) -- When it was created; null if it does not say so in Unix seconds
$$);

DROP PROCEDURE stripe.define;
COMMENT ON COLUMN stripe.objects.object_type IS 'What Stripe calls its type, for example discount or account';

-- Indexes ------------------------------------------------------------------------------------
-- One more index is several µs per event. Each is on a column that never changes for an object, or
-- hardly, so that updates can stay in their page (HOT).

CREATE INDEX customers_email ON stripe.customers (email) WHERE email IS NOT NULL;
CREATE INDEX subscriptions_customer ON stripe.subscriptions (customer) WHERE customer IS NOT NULL;
CREATE INDEX invoices_customer ON stripe.invoices (customer) WHERE customer IS NOT NULL;
CREATE INDEX invoice_payments_invoice ON stripe.invoice_payments (invoice) WHERE invoice IS NOT NULL;
CREATE INDEX invoice_payments_payment_intent ON stripe.invoice_payments (payment_intent) WHERE payment_intent IS NOT NULL;
CREATE INDEX payment_intents_customer ON stripe.payment_intents (customer) WHERE customer IS NOT NULL;
CREATE INDEX charges_customer ON stripe.charges (customer) WHERE customer IS NOT NULL;
CREATE INDEX payment_methods_customer ON stripe.payment_methods (customer) WHERE customer IS NOT NULL;

COMMENT ON INDEX stripe.customers_email IS 'Which customer has this address?';
COMMENT ON INDEX stripe.subscriptions_customer IS 'What does this customer subscribe to?';
COMMENT ON INDEX stripe.invoices_customer IS 'Which invoices does this customer have, and which of them are open?';
COMMENT ON INDEX stripe.invoice_payments_invoice IS 'What paid this invoice? Since basil the invoice does not say';
COMMENT ON INDEX stripe.invoice_payments_payment_intent IS 'Which invoice did this payment pay? Since basil the payment does not say';
COMMENT ON INDEX stripe.payment_intents_customer IS 'What did this customer pay, or try to?';
COMMENT ON INDEX stripe.charges_customer IS 'What was this customer charged?';
COMMENT ON INDEX stripe.payment_methods_customer IS 'What can this customer pay with?';

-- Views --------------------------------------------------------------------------------------
-- Per account, livemode and currency; currencies are never added up. Without deleted objects.

CREATE VIEW stripe.active_subscriptions AS
    SELECT s.account, s.livemode, s.currency, s.id, s.customer, c.email AS customer_email, s.status, s.price, s.product,
           s.quantity, s.current_period_start, s.current_period_end, s.trial_end, s.cancel_at_period_end, s.cancel_at,
           s.pause_collection
    FROM stripe.subscriptions s
    LEFT JOIN stripe.customers c ON c.account = s.account AND c.livemode = s.livemode AND c.id = s.customer AND NOT c.deleted
    WHERE NOT s.deleted AND s.status IN ('active', 'trialing', 'past_due');

CREATE VIEW stripe.subscription_items AS
    SELECT s.account, s.livemode,
           COALESCE(stripe.to_text(i #> '{price,currency}'), stripe.to_text(i #> '{plan,currency}'), s.currency) AS currency,
           stripe.to_id(i->'id') AS id, s.id AS subscription, s.customer, s.status AS subscription_status,
           COALESCE(stripe.to_id(i->'price'), stripe.to_id(i->'plan')) AS price,
           COALESCE(stripe.to_id(i #> '{price,product}'), stripe.to_id(i #> '{plan,product}')) AS product,
           stripe.to_bigint(i->'quantity') AS quantity,
           COALESCE(stripe.to_bigint(i #> '{price,unit_amount}'), stripe.to_bigint(i #> '{plan,amount}')) AS unit_amount,
           COALESCE(stripe.to_numeric(i #> '{price,unit_amount_decimal}'), stripe.to_numeric(i #> '{plan,amount_decimal}'),
                    stripe.to_numeric(i #> '{price,unit_amount}'), stripe.to_numeric(i #> '{plan,amount}')) AS unit_amount_decimal,
           COALESCE(stripe.to_text(i #> '{price,recurring,interval}'), stripe.to_text(i #> '{plan,interval}')) AS "interval",
           COALESCE(stripe.to_bigint(i #> '{price,recurring,interval_count}'), stripe.to_bigint(i #> '{plan,interval_count}')) AS interval_count,
           COALESCE(stripe.to_text(i #> '{price,recurring,usage_type}'), stripe.to_text(i #> '{plan,usage_type}'), 'licensed') AS usage_type,
           COALESCE(stripe.to_time(i->'current_period_start'), s.current_period_start) AS current_period_start,
           COALESCE(stripe.to_time(i->'current_period_end'), s.current_period_end) AS current_period_end,
           i AS item
    FROM stripe.subscriptions s,
         stripe.items(CASE WHEN s.object->'items' IS NOT NULL THEN s.object->'items'
                           WHEN jsonb_typeof(s.object->'plan') = 'object'
                           THEN jsonb_build_array(jsonb_build_object('plan', s.object->'plan', 'quantity', s.object->'quantity')) END) i
    WHERE NOT s.deleted;

CREATE VIEW stripe.invoice_lines AS
    SELECT v.account, v.livemode, COALESCE(stripe.to_text(l->'currency'), v.currency) AS currency,
           stripe.to_id(l->'id') AS id, v.id AS invoice, v.customer,
           COALESCE(stripe.to_id(l->'subscription'),
                    stripe.to_id(l #> '{parent,subscription_item_details,subscription}'),
                    stripe.to_id(l #> '{parent,invoice_item_details,subscription}'),
                    CASE WHEN stripe.to_text(l->'type') = 'subscription' AND starts_with(stripe.to_id(l->'id'), 'sub_')
                         THEN stripe.to_id(l->'id') END) AS subscription,
           COALESCE(stripe.to_id(l #> '{pricing,price_details,price}'), stripe.to_id(l->'price'), stripe.to_id(l->'plan')) AS price,
           COALESCE(stripe.to_id(l #> '{pricing,price_details,product}'), stripe.to_id(l #> '{price,product}'),
                    stripe.to_id(l #> '{plan,product}')) AS product,
           stripe.to_bigint(l->'amount') AS amount, stripe.to_bigint(l->'quantity') AS quantity,
           stripe.to_time(l #> '{period,start}') AS period_start, stripe.to_time(l #> '{period,end}') AS period_end,
           stripe.to_text(l->'description') AS description,
           COALESCE(stripe.to_bool(l->'proration'),
                    stripe.to_bool(l #> '{parent,subscription_item_details,proration}'),
                    stripe.to_bool(l #> '{parent,invoice_item_details,proration}')) AS proration
    FROM stripe.invoices v, stripe.items(v.object->'lines') l
    WHERE NOT v.deleted;

CREATE VIEW stripe.mrr AS
    WITH item AS ( -- what an item brings in a month; null if the item does not say
        SELECT i.account, i.livemode, i.currency, i.subscription,
               p.unit_amount * p.packs / p.months AS amount,
               p.months
        FROM stripe.subscription_items i,
             LATERAL (SELECT stripe.to_numeric(i.item #> '{price,transform_quantity,divide_by}') AS divide_by,
                             stripe.to_text(i.item #> '{price,transform_quantity,round}') AS round,
                             COALESCE(i.quantity, 1)::numeric AS quantity) q,
             LATERAL (SELECT i.unit_amount_decimal AS unit_amount,
                             CASE WHEN q.divide_by >= 1 AND q.round = 'up' THEN ceil(q.quantity / q.divide_by)
                                  WHEN q.divide_by >= 1 THEN floor(q.quantity / q.divide_by)
                                  ELSE q.quantity END AS packs,
                             CASE WHEN COALESCE(i.interval_count, 1) >= 1 THEN COALESCE(i.interval_count, 1)
                                  * CASE i.interval WHEN 'year' THEN 12 WHEN 'month' THEN 1
                                                    WHEN 'week' THEN 84 / 365.25 WHEN 'day' THEN 12 / 365.25 END END AS months) p
        WHERE i.subscription_status IN ('active', 'past_due') AND i.usage_type = 'licensed'
    ), gross AS (
        SELECT account, livemode, currency, subscription, COALESCE(sum(amount), 0) AS amount, min(months) AS months,
               count(*) FILTER (WHERE amount IS NULL) AS unknown
        FROM item GROUP BY account, livemode, currency, subscription
    ), discount AS ( -- of the subscription itself, where it lasts longer than one invoice
        SELECT s.account, s.livemode, s.id AS subscription,
               stripe.to_numeric(c.coupon->'percent_off') AS percent_off,
               stripe.to_numeric(c.coupon->'amount_off') AS amount_off,
               stripe.to_text(c.coupon->'currency') AS currency,
               COALESCE(stripe.to_numeric(c.coupon->'percent_off'), stripe.to_numeric(c.coupon->'amount_off')) IS NULL AS unknown
        FROM stripe.subscriptions s
             CROSS JOIN LATERAL (
                      SELECT s.object->'discount' AS ref WHERE jsonb_typeof(s.object->'discount') = 'object'
                      UNION ALL
                      SELECT e.value FROM jsonb_array_elements(CASE WHEN jsonb_typeof(s.object->'discounts') = 'array'
                                                                    THEN s.object->'discounts' END) e
                      WHERE jsonb_typeof(s.object->'discount') IS DISTINCT FROM 'object') r
             LEFT JOIN stripe.objects o ON o.account = s.account AND o.livemode = s.livemode AND o.object_type = 'discount'
                                       AND o.id = stripe.to_id(r.ref) AND jsonb_typeof(r.ref) = 'string'
             CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(r.ref) = 'object' THEN r.ref ELSE o.object END AS discount) d
             CROSS JOIN LATERAL (SELECT COALESCE(NULLIF(d.discount->'coupon', 'null'), d.discount #> '{source,coupon}') AS coupon) e
             LEFT JOIN stripe.coupons k ON k.account = s.account AND k.livemode = s.livemode AND k.id = stripe.to_id(e.coupon)
                                       AND jsonb_typeof(e.coupon) = 'string'
             CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(e.coupon) = 'object' THEN e.coupon ELSE k.object END AS coupon) c
        WHERE NOT s.deleted AND s.status IN ('active', 'past_due') AND COALESCE(NOT o.deleted, true)
          AND COALESCE(stripe.to_text(c.coupon->'duration') <> 'once', true)
          AND COALESCE(stripe.to_time(d.discount->'end') > now(), true)
    ), net AS (
        SELECT g.account, g.livemode, g.currency, g.subscription, g.amount,
               GREATEST(g.amount * COALESCE(d.remaining, 1) - COALESCE(d.amount_off, 0) / g.months, LEAST(g.amount, 0)) AS net,
               g.unknown + COALESCE(d.unknown, 0) AS unknown
        FROM gross g
        LEFT JOIN LATERAL (
            SELECT CASE WHEN bool_or(percent_off >= 100) THEN 0
                        ELSE exp(sum(ln(1 - percent_off / 100)) FILTER (WHERE percent_off BETWEEN 0.000001 AND 99.999999)) END AS remaining,
                   sum(amount_off) FILTER (WHERE d.currency = g.currency AND amount_off > 0) AS amount_off,
                   count(*) FILTER (WHERE d.unknown) AS unknown
            FROM discount d
            WHERE d.account = g.account AND d.livemode = g.livemode AND d.subscription = g.subscription) d ON true
    )
    SELECT n.account, n.livemode, n.currency, stripe.fit(sum(n.net)) AS mrr, stripe.fit(sum(n.amount)) AS gross,
           count(*) AS subscriptions, count(*) FILTER (WHERE n.unknown > 0) AS uncertain
    FROM net n JOIN stripe.subscriptions s ON s.account = n.account AND s.livemode = n.livemode AND s.id = n.subscription
    WHERE s.pause_collection IS NULL
    GROUP BY n.account, n.livemode, n.currency;

CREATE VIEW stripe.revenue_daily AS
    WITH contested AS (
        SELECT account, livemode, currency, charge, sum(amount) AS amount
        FROM stripe.disputes
        WHERE NOT deleted AND charge IS NOT NULL AND status IN ('needs_response', 'under_review', 'lost')
        GROUP BY account, livemode, currency, charge
    )
    SELECT c.account, c.livemode, c.currency, (c.created AT TIME ZONE 'UTC')::date AS day,
           stripe.fit(sum(COALESCE(c.amount_captured, c.amount))) AS gross,
           -- What was authorized and not captured counts as refunded in a charge, but was never revenue.
           stripe.fit(sum(COALESCE(c.amount_refunded, 0) - r.released)) AS refunded,
           stripe.fit(sum(COALESCE(d.amount, 0))) AS disputed,
           stripe.fit(sum(COALESCE(c.amount_captured, c.amount)) - sum(COALESCE(c.amount_refunded, 0) - r.released)
                      - sum(COALESCE(d.amount, 0))) AS net,
           count(*) AS charges
    FROM stripe.charges c
    CROSS JOIN LATERAL (SELECT LEAST(COALESCE(c.amount::numeric - c.amount_captured, 0), COALESCE(c.amount_refunded, 0)) AS released) r
    LEFT JOIN contested d ON d.account = c.account AND d.livemode = c.livemode AND d.currency = c.currency AND d.charge = c.id
    WHERE NOT c.deleted AND c.status = 'succeeded' AND c.captured IS NOT FALSE
    GROUP BY c.account, c.livemode, c.currency, (c.created AT TIME ZONE 'UTC')::date;

CREATE VIEW stripe.failed_payments AS
    WITH invoice AS (
        SELECT v.*, COALESCE(v.payment_intent, p.payment_intent) AS payment, COALESCE(v.charge, p.charge) AS attempt
        FROM stripe.invoices v
        LEFT JOIN LATERAL (
            SELECT p.payment_intent, p.charge FROM stripe.invoice_payments p
            WHERE p.account = v.account AND p.livemode = v.livemode AND p.invoice = v.id AND NOT p.deleted
            ORDER BY p.is_default DESC NULLS LAST, p.created DESC NULLS LAST, p.id LIMIT 1) p ON true
        WHERE NOT v.deleted AND v.status IN ('open', 'uncollectible') AND v.attempt_count > 0
    ), failed AS (
        SELECT v.account, v.livemode, v.currency, 'invoice' AS source, v.id, v.customer, v.customer_email AS email,
               COALESCE(v.amount_remaining, v.amount_due) AS amount, v.status,
               COALESCE(p.last_error_code, c.failure_code) AS failure_code,
               COALESCE(p.last_error_message, c.failure_message) AS failure_message,
               v.attempt_count, v.next_payment_attempt, v.created
        FROM invoice v
        LEFT JOIN stripe.payment_intents p ON p.account = v.account AND p.livemode = v.livemode AND p.id = v.payment
        LEFT JOIN stripe.charges c ON c.account = v.account AND c.livemode = v.livemode
                                  AND c.id = COALESCE(v.attempt, p.latest_charge)
        UNION ALL
        SELECT p.account, p.livemode, p.currency, 'payment_intent', p.id, p.customer, p.receipt_email, p.amount, p.status,
               p.last_error_code, p.last_error_message, NULL, NULL, p.created
        FROM stripe.payment_intents p
        WHERE NOT p.deleted AND p.status IN ('requires_payment_method', 'canceled')
          AND COALESCE(p.last_error_code, p.last_error_message) IS NOT NULL
          AND NOT EXISTS (SELECT FROM invoice v WHERE v.account = p.account AND v.livemode = p.livemode AND v.payment = p.id)
        UNION ALL
        SELECT c.account, c.livemode, c.currency, 'charge', c.id, c.customer, c.receipt_email, c.amount, c.status,
               c.failure_code, c.failure_message, NULL, NULL, c.created
        FROM stripe.charges c
        WHERE NOT c.deleted AND c.status = 'failed' AND c.payment_intent IS NULL AND c.invoice IS NULL
    )
    SELECT f.account, f.livemode, f.currency, f.source, f.id, f.customer, COALESCE(f.email, k.email) AS email, f.amount, f.status,
           f.failure_code, f.failure_message, f.attempt_count, f.next_payment_attempt, f.created
    FROM failed f
    LEFT JOIN stripe.customers k ON k.account = f.account AND k.livemode = f.livemode AND k.id = f.customer AND NOT k.deleted;

CREATE VIEW stripe.customer_entitlements AS
    SELECT a.account, a.livemode, COALESCE(a.customer, a.id) AS customer, stripe.to_id(e->'id') AS entitlement,
           stripe.to_id(e->'feature') AS feature, stripe.to_text(e->'lookup_key') AS lookup_key
    FROM stripe.active_entitlements a, stripe.items(a.object->'entitlements') e
    WHERE NOT a.deleted;

DO $$
BEGIN
    EXECUTE 'CREATE VIEW stripe.order_ties AS ' || (
        SELECT string_agg(format('SELECT %L AS table_name, account, livemode, id, as_of, as_of_event
                                  FROM stripe.%I WHERE order_basis = ''tiebreak'' AND NOT deleted', c.relname, c.relname), ' UNION ALL '
                          ORDER BY c.relname)
        FROM pg_catalog.pg_class c WHERE c.relnamespace = 'stripe'::regnamespace AND c.relkind = 'r');
END
$$;

COMMENT ON VIEW stripe.active_subscriptions IS 'Subscriptions that give access: active, trialing or past_due';
COMMENT ON VIEW stripe.subscription_items IS 'What each subscription consists of, whatever its status. Before 2016-07, when there were no items, its plan. Stripe sends at most the first 20 items';
COMMENT ON VIEW stripe.invoice_lines IS 'What each invoice consists of, drafts and void ones included. Stripe sends at most the first 10 lines';
COMMENT ON VIEW stripe.mrr IS 'Monthly recurring revenue now: of subscriptions that are active or past_due (the customer has it and owes it; trialing owes nothing yet, unpaid and paused no longer get it), without those whose collection is paused. Licensed usage only, 12 months to the year, 365.25 days to it, packages (transform_quantity) as billed. Net of discounts of the subscription itself that are forever or repeating and have not ended: percentages first, then amounts, as if the coupon applied to every item; not of discounts of single items or of the customer. Without taxes';
COMMENT ON VIEW stripe.revenue_daily IS 'Succeeded, captured charges by the UTC day on which they were created. A refund or dispute counts on the day of its charge, so that days in the past can change';
COMMENT ON VIEW stripe.failed_payments IS 'What was tried and not paid: invoices open or uncollectible after an attempt, payments outside them that wait for another way to pay or were cancelled, and failed charges that belong to neither';
COMMENT ON VIEW stripe.customer_entitlements IS 'Which features each customer may use now. Stripe cuts long lists: see active_entitlements.has_more';
COMMENT ON VIEW stripe.order_ties IS 'Objects with several events in the newest second between which only the event ids decided: if it matters, fetch the object from Stripe';

DO $$
DECLARE
    _column record;
BEGIN
    FOR _column IN
        SELECT c.relname, a.attname, COALESCE(own.about, shared.about) AS about
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN (VALUES
            ('subscription_items', 'id', 'The item''s id, si_…; null before 2016-07'),
            ('subscription_items', 'item', 'The whole item'),
            ('subscription_items', 'current_period_start', 'Start of the period that was billed last'),
            ('subscription_items', 'current_period_end', 'When it renews'),
            ('subscription_items', 'price', 'The price; before 2020 the plan'),
            ('invoice_lines', 'id', 'The line''s id, il_…; before 2019-12 also that of what it bills'),
            ('invoice_lines', 'amount', 'Minor units before discounts and exclusive taxes; negative for credits'),
            ('invoice_lines', 'price', 'The price or plan; since basil below pricing.price_details'),
            ('invoice_lines', 'period_start', 'Start of the time it is for'),
            ('invoice_lines', 'period_end', 'End of the time it is for'),
            ('invoice_lines', 'subscription', 'The subscription it bills; since basil below parent'),
            ('invoice_lines', 'description', 'What customers read'),
            ('active_subscriptions', 'id', 'The subscription''s id'),
            ('active_subscriptions', 'price', 'The price or plan of the first item'),
            ('active_subscriptions', 'status', 'active, trialing or past_due'),
            ('active_subscriptions', 'quantity', 'How many; if there are several items, of the first'),
            ('failed_payments', 'id', 'The invoice, payment intent or charge'),
            ('failed_payments', 'amount', 'Minor units not paid'),
            ('failed_payments', 'status', 'The status of the invoice, payment intent or charge'),
            ('failed_payments', 'created', 'When the invoice, payment intent or charge was created'),
            ('order_ties', 'id', 'The object''s id')
        ) own (view, name, about) ON own.view = c.relname AND own.name = a.attname
        LEFT JOIN (VALUES
            ('account', 'The connected account; empty for the platform''s own'),
            ('livemode', 'True for live, false for test data'),
            ('currency', 'Three letters'),
            ('customer', 'The customer'),
            ('customer_email', 'The customer''s address now'),
            ('email', 'The address on the invoice or for the receipt, else the customer''s'),
            ('subscription', 'The subscription'),
            ('subscription_status', 'The subscription''s status'),
            ('invoice', 'The invoice'),
            ('product', 'The product of the price'),
            ('quantity', 'How many'),
            ('unit_amount', 'Minor units for one; null if tiered or a fraction'),
            ('unit_amount_decimal', 'The same with fractions of a minor unit'),
            ('interval', 'day, week, month or year'),
            ('interval_count', 'Billed every so many intervals'),
            ('usage_type', 'licensed (by quantity) or metered (by use)'),
            ('current_period_start', 'Start of the period that was billed last; if items differ, the latest'),
            ('current_period_end', 'When it renews; if items differ, the earliest'),
            ('trial_end', 'End of the trial'),
            ('cancel_at_period_end', 'True if it ends instead of renewing'),
            ('cancel_at', 'When it will end'),
            ('pause_collection', 'keep_as_draft, mark_uncollectible or void while its invoices are not collected; otherwise null'),
            ('proration', 'True for the difference that a change in mid-period made'),
            ('mrr', 'Minor units a month, net of discounts'),
            ('subscriptions', 'How many subscriptions that is'),
            ('uncertain', 'How many of them have an item without a fixed amount (tiered), which counts as 0, or a discount whose coupon was never seen'),
            ('day', 'UTC; null for charges that do not say when'),
            ('refunded', 'Minor units refunded of them until now'),
            ('disputed', 'Minor units of them withdrawn by disputes that are open or lost'),
            ('net', 'gross less refunded and disputed; before Stripe''s fees'),
            ('charges', 'How many charges'),
            ('source', 'invoice, payment_intent or charge'),
            ('failure_code', 'Why the last attempt failed, for example card_declined'),
            ('failure_message', 'The same in words'),
            ('attempt_count', 'How often an invoice was tried'),
            ('next_payment_attempt', 'When an invoice will be tried again; null if no more'),
            ('entitlement', 'The entitlement''s id, ent_…'),
            ('feature', 'The feature''s id, feat_…'),
            ('lookup_key', 'Your own name for the feature'),
            ('table_name', 'The table in the schema stripe'),
            ('as_of', 'When Stripe made the event that the row shows'),
            ('as_of_event', 'The id of that event')
        ) shared (name, about) ON shared.name = a.attname
        WHERE c.relnamespace = 'stripe'::regnamespace AND c.relkind = 'v'
    LOOP
        EXECUTE format('COMMENT ON COLUMN stripe.%I.%I IS %L', _column.relname, _column.attname, _column.about);
    END LOOP;
END
$$;
COMMENT ON COLUMN stripe.mrr.gross IS 'The same before discounts';
COMMENT ON COLUMN stripe.revenue_daily.gross IS 'Minor units captured';

-- What views left out: payments that are still under way have not failed; and of discounts and packages,
-- what Stripe had in 2018, and amounts in another currency.

SET LOCAL lock_timeout = '5s';

CREATE OR REPLACE VIEW stripe.failed_payments AS
    WITH payment AS (
        SELECT p.* FROM stripe.payment_intents p
        WHERE NOT p.deleted AND p.status IN ('requires_payment_method', 'canceled')
          AND COALESCE(p.last_error_code, p.last_error_message) IS NOT NULL
    ), invoice AS (
        SELECT v.*, COALESCE(v.payment_intent, y.payment_intent, p.id) AS payment, COALESCE(v.charge, y.charge) AS attempt
        FROM stripe.invoices v
        LEFT JOIN LATERAL (
            SELECT y.payment_intent, y.charge FROM stripe.invoice_payments y
            WHERE y.account = v.account AND y.livemode = v.livemode AND y.invoice = v.id AND NOT y.deleted
            ORDER BY y.is_default DESC NULLS LAST, y.created DESC NULLS LAST, y.id LIMIT 1) y ON true
        LEFT JOIN LATERAL (
            SELECT p.id FROM payment p
            WHERE p.account = v.account AND p.livemode = v.livemode AND p.invoice = v.id
            ORDER BY p.created DESC NULLS LAST, p.id LIMIT 1) p ON true
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
        -- A direct debit takes days.
        WHERE p.status IS DISTINCT FROM 'processing' AND c.status IS DISTINCT FROM 'pending'
        UNION ALL
        SELECT p.account, p.livemode, p.currency, 'payment_intent', p.id, p.customer, p.receipt_email, p.amount, p.status,
               p.last_error_code, p.last_error_message, NULL, NULL, p.created
        FROM payment p
        -- What becomes of an invoice's payment is the invoice's, whatever its status.
        WHERE NOT EXISTS (SELECT FROM stripe.invoices v
                          WHERE v.account = p.account AND v.livemode = p.livemode AND v.id = p.invoice)
          AND NOT EXISTS (SELECT FROM stripe.invoices v
                          WHERE v.account = p.account AND v.livemode = p.livemode AND v.payment_intent = p.id)
          AND NOT EXISTS (SELECT FROM stripe.invoice_payments y
                          WHERE y.account = p.account AND y.livemode = p.livemode AND y.payment_intent = p.id AND NOT y.deleted)
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

-- percent_off was a whole number in the first half of 2018, with the exact one beside it.
UPDATE tollgate.billing_columns SET expression = 'COALESCE(stripe.to_numeric(object->''percent_off_precise''), stripe.to_numeric(object->''percent_off''))'
WHERE (table_name, name) = ('coupons', 'percent_off');
SELECT tollgate.make_write_objects('stripe'), tollgate.make_commit_event();
UPDATE stripe.coupons SET percent_off = stripe.to_numeric(object->'percent_off_precise')
WHERE stripe.to_numeric(object->'percent_off_precise') IS NOT NULL;

CREATE OR REPLACE VIEW stripe.mrr AS
    WITH item AS ( -- what an item brings in a month; null if the item does not say
        SELECT i.account, i.livemode, i.currency, i.subscription,
               p.unit_amount * p.packs / p.months AS amount,
               p.months
        FROM stripe.subscription_items i,
             LATERAL (SELECT COALESCE(stripe.to_numeric(i.item #> '{price,transform_quantity,divide_by}'),
                                      stripe.to_numeric(i.item #> '{plan,transform_usage,divide_by}')) AS divide_by,
                             COALESCE(stripe.to_text(i.item #> '{price,transform_quantity,round}'),
                                      stripe.to_text(i.item #> '{plan,transform_usage,round}')) AS round,
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
               COALESCE(stripe.to_numeric(c.coupon->'percent_off_precise'), stripe.to_numeric(c.coupon->'percent_off')) AS percent_off,
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
                   -- An amount in another currency takes off what only Stripe knows.
                   count(*) FILTER (WHERE d.unknown OR d.percent_off IS NULL AND d.amount_off > 0
                                                       AND d.currency IS DISTINCT FROM g.currency) AS unknown
            FROM discount d
            WHERE d.account = g.account AND d.livemode = g.livemode AND d.subscription = g.subscription) d ON true
    )
    SELECT n.account, n.livemode, n.currency, stripe.fit(sum(n.net)) AS mrr, stripe.fit(sum(n.amount)) AS gross,
           count(*) AS subscriptions, count(*) FILTER (WHERE n.unknown > 0) AS uncertain
    FROM net n JOIN stripe.subscriptions s ON s.account = n.account AND s.livemode = n.livemode AND s.id = n.subscription
    WHERE s.pause_collection IS NULL
    GROUP BY n.account, n.livemode, n.currency;

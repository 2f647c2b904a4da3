-- Since basil (2025-03-31) a subscription names its discounts without their coupons, and since
-- 2020-08-27 a charge no dispute: what earlier events said of them stays.

SET LOCAL lock_timeout = '5s';

CREATE FUNCTION stripe.coupon_of(_discount text, _links jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN split_part(_links->>'discount', ' ', 1) = _discount
                THEN substr(_links->>'discount', strpos(_links->>'discount', ' ') + 1) END;
COMMENT ON FUNCTION stripe.coupon_of IS 'The coupon of a discount, if it is the one that links names: {"discount":"di_… COUPON"}';

UPDATE tollgate.billing_columns SET expression = format(
    'COALESCE(%s, CASE WHEN jsonb_typeof(object->''discounts'') = ''array'' THEN stripe.coupon_of(stripe.to_id(object #> ''{discounts,0}''), links) END)',
    expression)
WHERE (table_name, name) = ('subscriptions', 'coupon');
COMMENT ON COLUMN stripe.subscriptions.coupon IS 'The coupon of the first discount of its own; since basil, unless discounts is expanded, what an earlier event said of that discount';

UPDATE tollgate.billing_columns SET expression = format('COALESCE(%s, stripe.to_id(links->''dispute''))', expression)
WHERE (table_name, name) = ('charges', 'dispute');
COMMENT ON COLUMN stripe.charges.dispute IS 'Its dispute; since 2020-08-27 what an earlier event said, else see stripe.disputes';

SELECT tollgate.make_write_objects('stripe');
SELECT tollgate.make_commit_event();

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
                      -- Between 2024-06-20 and basil the one is among the others.
                      WHERE COALESCE(stripe.to_id(e.value) <> stripe.to_id(s.object->'discount'),
                                     jsonb_typeof(s.object->'discount') IS DISTINCT FROM 'object')) r
             LEFT JOIN stripe.objects o ON o.account = s.account AND o.livemode = s.livemode AND o.object_type = 'discount'
                                       AND o.id = stripe.to_id(r.ref) AND jsonb_typeof(r.ref) = 'string'
             CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(r.ref) = 'object' THEN r.ref ELSE o.object END AS discount) d
             CROSS JOIN LATERAL (SELECT COALESCE(NULLIF(d.discount->'coupon', 'null'), d.discount #> '{source,coupon}',
                                                 to_jsonb(stripe.coupon_of(stripe.to_id(r.ref), s.links))) AS coupon) e
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

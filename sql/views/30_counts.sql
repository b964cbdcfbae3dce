-- How often each value occurs. Of 32-bit floats `value` is the mean of the elements that share the top half
-- of their pattern, all of which lie between `low` and `high`; elsewhere the three are equal.
CREATE OR REPLACE VIEW value_counts AS
SELECT
    t.subject_id, s.name AS subject, t.tensor_id, t.name,
    c.value + CASE WHEN c.step = 0 THEN 0 ELSE c.step * (b.low_sum / b.n) END AS value,
    sum(b.n)::UBIGINT AS n,
    least(c.value, c.value + 65535 * c.step) AS low,
    greatest(c.value, c.value + 65535 * c.step) AS high
FROM bins b
JOIN tensors t ON t.tensor_id = b.tensor_id
JOIN subjects s ON s.subject_id = t.subject_id AND s.status = 'complete'
JOIN codes c ON c.coding = t.coding AND c.code = b.code
GROUP BY ALL;

-- The k-sigma filter at any t and floor, from the counts: filtered_at(2.5, 0), filtered_at(3, 1e-3).
-- Kept are the elements in [mean - t std, mean + t std] of magnitude at least the floor. A cell of 32-bit
-- floats that a limit cuts is split as if the density in it were uniform. `only_subject := NAME` is quicker.
CREATE OR REPLACE MACRO filtered_at(t, least_magnitude, only_subject := NULL) AS TABLE
WITH limits AS (
    SELECT
        subject_id, subject, tensor_id, name, part, layer, module, role, is_matrix, coding, finite, min, max,
        p50 AS origin,  -- offsets from it keep the digits of a narrow spread far from zero
        mean - t * std AS low_limit,
        mean + t * std AS high_limit
    FROM tensor_stats
    WHERE finite > 0 AND (only_subject IS NULL OR subject = only_subject)
),
counted AS MATERIALIZED (  -- before the codes come in, or each tensor meets all of them
    SELECT l.*, b.code, b.n::DOUBLE AS n, b.low_sum, b.low_square_sum
    FROM limits l
    JOIN bins b USING (tensor_id)
),
cells AS (
    SELECT
        tensor_id, origin, counted.n,
        c.value - origin + CASE WHEN c.step = 0 THEN 0 ELSE c.step * (low_sum / counted.n) END AS offset_,
        CASE WHEN c.step = 0 THEN 0
             ELSE c.step * c.step * (low_square_sum - low_sum::DOUBLE * low_sum / counted.n) END AS spread,
        greatest(least(c.value, c.value + 65535 * c.step), min) AS low,
        least(greatest(c.value, c.value + 65535 * c.step), max) AS high,
        c.value < 0 OR c.step < 0 AS negative,
        CASE WHEN negative OR least_magnitude = 0 THEN low_limit
             ELSE greatest(low_limit, least_magnitude) END AS kept_from,
        CASE WHEN negative AND least_magnitude > 0 THEN least(high_limit, -least_magnitude)
             ELSE high_limit END AS kept_to
    FROM counted
    JOIN codes c ON c.coding = counted.coding AND c.code = counted.code AND isfinite(c.value)
),
pieces AS (
    SELECT
        tensor_id,
        low >= kept_from AND high <= kept_to AS whole,
        least(high, kept_to) - greatest(low, kept_from) AS width,
        CASE WHEN whole THEN 1 ELSE width / (high - low) END AS share,
        CASE WHEN whole THEN offset_ ELSE (greatest(low, kept_from) + least(high, kept_to)) / 2 - origin END AS x,
        CASE WHEN whole THEN spread ELSE cells.n * share * width * width / 12 END AS m2,
        cells.n * share AS k
    FROM cells
    WHERE high >= kept_from AND low <= kept_to AND kept_from <= kept_to AND k > 0
),
means AS (
    SELECT tensor_id, fsum(k) AS kept, fsum(k * x) / fsum(k) AS shift FROM pieces GROUP BY tensor_id
),
summed AS (
    SELECT
        tensor_id,
        any_value(kept) AS kept,
        any_value(shift) AS shift,
        fsum(k * (x - shift) ** 2 + m2) / any_value(kept) AS variance,
        fsum(k * (x - shift) ** 3 + 3 * (x - shift) * m2) / any_value(kept) AS third,
        fsum(k * (x - shift) ** 4 + 6 * (x - shift) ** 2 * m2 + 1.8 * m2 * m2 / k) / any_value(kept) AS fourth
    FROM pieces
    JOIN means USING (tensor_id)
    GROUP BY tensor_id
)
SELECT
    l.subject_id, l.subject, l.tensor_id, l.name, l.part, l.layer, l.module, l.role, l.is_matrix,
    coalesce(round(s.kept), 0)::UBIGINT AS kept,
    coalesce(s.kept, 0) / l.finite AS ratio,
    l.origin + s.shift AS mean,
    sqrt(s.variance) AS std,
    s.third / nullif(s.variance, 0) ** 1.5 AS skewness,
    s.fourth / nullif(s.variance, 0) ** 2 AS kurtosis
FROM limits l
LEFT JOIN summed s USING (tensor_id);

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
-- floats that a limit cuts is split as if the density in it were uniform.
CREATE OR REPLACE MACRO filtered_at(sigmas, least_magnitude) AS TABLE
WITH limits AS (
    SELECT subject_id, subject, tensor_id, name, part, layer, module, role, coding, is_matrix, finite,
           mean - sigmas * std AS low_limit, mean + sigmas * std AS high_limit
    FROM tensor_stats
    WHERE finite > 0
),
cells AS (
    SELECT
        l.tensor_id, b.n::DOUBLE AS n,
        c.value + CASE WHEN c.step = 0 THEN 0 ELSE c.step * (b.low_sum / b.n) END AS centre,
        CASE WHEN c.step = 0 THEN 0
             ELSE c.step * c.step * (b.low_square_sum - b.low_sum::DOUBLE * b.low_sum / b.n) END AS spread,
        least(c.value, c.value + 65535 * c.step) AS low,
        greatest(c.value, c.value + 65535 * c.step) AS high,
        c.value < 0 OR c.step < 0 AS negative,
        CASE WHEN negative OR least_magnitude = 0 THEN low_limit ELSE greatest(low_limit, least_magnitude) END AS kept_from,
        CASE WHEN negative AND least_magnitude > 0 THEN least(high_limit, -least_magnitude) ELSE high_limit END AS kept_to
    FROM limits l
    JOIN bins b ON b.tensor_id = l.tensor_id
    JOIN codes c ON c.coding = l.coding AND c.code = b.code AND isfinite(c.value)
),
pieces AS (
    SELECT
        tensor_id,
        low >= kept_from AND high <= kept_to AS whole,
        greatest(low, kept_from) AS start,
        least(high, kept_to) AS stop,
        CASE WHEN whole THEN n ELSE n * (stop - start) / (high - low) END AS n,
        CASE WHEN whole THEN centre ELSE (start + stop) / 2 END AS centre,
        CASE WHEN whole THEN spread ELSE n * (stop - start) / (high - low) * (stop - start) ** 2 / 12 END AS spread
    FROM cells
    WHERE high >= kept_from AND low <= kept_to AND kept_from <= kept_to
),
centred AS (
    SELECT *, fsum(n * centre) OVER g / fsum(n) OVER g AS mean, centre - mean AS d
    FROM (SELECT tensor_id, pieces.n, pieces.centre, pieces.spread FROM pieces)
    WINDOW g AS (PARTITION BY tensor_id)
),
summed AS (
    SELECT
        tensor_id,
        fsum(n) AS total,
        any_value(mean) AS mean,
        fsum(n * d * d + spread) / total AS variance,
        fsum(n * d * d * d + 3 * d * spread) / total AS third,
        fsum(n * d * d * d * d + 6 * d * d * spread + CASE WHEN n > 0 THEN 1.8 * spread * spread / n ELSE 0 END)
            / total AS fourth
    FROM centred
    GROUP BY tensor_id
)
SELECT
    l.subject_id, l.subject, l.tensor_id, l.name, l.part, l.layer, l.module, l.role, l.is_matrix,
    coalesce(round(s.total), 0)::UBIGINT AS kept,
    coalesce(s.total, 0) / l.finite AS ratio,
    s.mean,
    sqrt(s.variance) AS std,
    s.third / nullif(s.variance, 0) ** 1.5 AS skewness,
    s.fourth / nullif(s.variance, 0) ** 2 AS kurtosis
FROM limits l
LEFT JOIN summed s USING (tensor_id);

-- How are the values of a tensor distributed over equal bins between its quantiles 0.001 and 0.999?
-- param subject = NULL: only this subject; all when NULL
-- param tensor = NULL: only the tensor of this name; all when NULL
-- param bins = 40: how many bins
-- gaussian_n is what the fitted normal would put there. 32-bit floats with a common top half count at their mean.
WITH spans AS (
    SELECT
        subject_id, subject, tensor_id, ordinal, name, finite, mean, std, p001, p999,
        (p999 - p001) / $bins AS width
    FROM tensor_stats
    WHERE finite > 0 AND ($subject IS NULL OR subject = $subject) AND ($tensor IS NULL OR name = $tensor)
),
counted AS (
    SELECT
        s.tensor_id,
        least(coalesce(floor((v.value - s.p001) / nullif(s.width, 0)), 0), $bins - 1)::BIGINT AS bin,
        sum(v.n)::UBIGINT AS n
    FROM spans s
    JOIN value_counts v USING (tensor_id)
    WHERE v.value BETWEEN s.p001 AND s.p999
    GROUP BY ALL
)
SELECT
    s.subject, s.name, b.bin,
    s.p001 + b.bin * s.width AS low,
    s.p001 + (b.bin + 1) * s.width AS high,
    coalesce(c.n, 0) AS n,
    coalesce(c.n, 0) / s.finite AS ratio,
    s.finite * s.width / (nullif(s.std, 0) * sqrt(2 * pi()))
        * exp(-0.5 * (((low + high) / 2 - s.mean) / nullif(s.std, 0)) ** 2) AS gaussian_n
FROM spans s
JOIN range($bins::BIGINT) AS b(bin) ON s.width > 0 OR b.bin = 0
LEFT JOIN counted c ON c.tensor_id = s.tensor_id AND c.bin = b.bin
ORDER BY s.subject_id, s.ordinal, b.bin;

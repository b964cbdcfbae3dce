-- How are the values of each matrix distributed (Figs. 1, 2, 4 and 8 to 26)?
-- param subject = NULL: only this subject; all when NULL
-- param kind = NULL: only subjects of this kind, such as adapter; all when NULL
-- param tensor = NULL: only the tensor of this name; all when NULL
-- param bins = 41: how many bins
-- param sigmas = 4: how many standard deviations on either side of the mean
-- param floor = 0: smaller magnitudes are left out
-- gaussian_density is that of the fitted normal. 32-bit floats with a common top half count at their mean.
WITH spans AS (
    SELECT
        t.subject_id, t.subject, t.tensor_id, t.ordinal, t.name, t.part, t.layer, t.module, t.finite, t.mean, t.std,
        t.mean - $sigmas * t.std AS start,
        2 * $sigmas * t.std / $bins AS width
    FROM tensor_stats t
    JOIN subjects s USING (subject_id)
    WHERE t.is_matrix AND t.std > 0
        AND ($subject IS NULL OR t.subject_id = $subject::INTEGER)
        AND ($kind IS NULL OR s.kind = $kind)
        AND ($tensor IS NULL OR t.name = $tensor)
),
counted AS (
    SELECT s.tensor_id, floor((v.value - s.start) / s.width)::BIGINT AS bin, sum(v.n)::UBIGINT AS n
    FROM spans s
    JOIN value_counts v USING (tensor_id)
    WHERE abs(v.value - s.mean) < $sigmas * s.std AND abs(v.value) >= $floor
    GROUP BY ALL
)
SELECT
    s.subject, s.part, s.layer, s.module, s.name, b.bin,
    s.start + b.bin * s.width AS low,
    s.start + (b.bin + 1) * s.width AS high,
    coalesce(c.n, 0) AS n,
    coalesce(c.n, 0) / s.finite / s.width AS density,
    exp(-0.5 * (((low + high) / 2 - s.mean) / s.std) ** 2) / (s.std * sqrt(2 * pi())) AS gaussian_density
FROM spans s
CROSS JOIN range($bins::BIGINT) AS b(bin)
LEFT JOIN counted c ON c.tensor_id = s.tensor_id AND c.bin = b.bin
ORDER BY s.subject_id, s.ordinal, b.bin;

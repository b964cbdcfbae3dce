-- What do elements look like that are independent but not identically distributed (Fig. 3)?
-- param subject = NULL: only this subject; all when NULL
-- param bins = 41: how many bins
-- param sigmas = 4: how many standard deviations of all elements together on either side of their mean
-- All matrices of a subject, each with a mean and sigma of its own, are laid on one axis. `density` is that of the
-- counts, `mixture_density` what it would be in the middle of a bin were each matrix Gaussian, `gaussian_density` were all of
-- them one Gaussian. The paper argues that elements of different distributions do not add up to that.
WITH matrices AS (
    SELECT
        subject_id, subject, tensor_id, finite::DOUBLE AS finite, mean, std, m2,
        fsum(finite * mean) OVER s / fsum(finite) OVER s AS centre
    FROM tensor_stats
    WHERE is_matrix AND std > 0 AND ($subject IS NULL OR subject_id = $subject::INTEGER)
    WINDOW s AS (PARTITION BY subject_id)
),
pooled AS (
    SELECT
        subject_id, subject, fsum(finite) AS elements, any_value(centre) AS middle,
        sqrt(fsum(m2 + finite * (mean - centre) ** 2) / fsum(finite)) AS sigma
    FROM matrices
    GROUP BY subject_id, subject
),
spans AS (
    SELECT subject_id, subject, elements AS finite, middle AS mean, sigma AS std, 2 * $sigmas * sigma / $bins AS width
    FROM pooled
),
bounds AS (
    SELECT *, mean + (b.bin - $bins / 2) * width AS low, mean + (b.bin + 1 - $bins / 2) * width AS high
    FROM spans
    CROSS JOIN range($bins::BIGINT) AS b(bin)
),
counted AS (
    SELECT s.subject_id, floor((v.value - s.mean) / s.width + $bins / 2)::BIGINT AS bin, sum(v.n)::UBIGINT AS n
    FROM spans s
    JOIN matrices m USING (subject_id)
    JOIN value_counts v ON v.tensor_id = m.tensor_id
    WHERE abs(v.value - s.mean) < $sigmas * s.std
    GROUP BY ALL
),
mixed AS (
    SELECT
        b.subject_id, b.bin,
        fsum(m.finite * exp(-0.5 * (((b.low + b.high) / 2 - m.mean) / m.std) ** 2) / m.std) / any_value(b.finite)
            / sqrt(2 * pi()) AS density
    FROM bounds b
    JOIN matrices m USING (subject_id)
    GROUP BY b.subject_id, b.bin
)
SELECT
    b.subject, b.bin, b.low, b.high,
    coalesce(c.n, 0) AS n,
    coalesce(c.n, 0) / b.finite / b.width AS density,
    m.density AS mixture_density,
    exp(-0.5 * (((b.low + b.high) / 2 - b.mean) / b.std) ** 2) / (b.std * sqrt(2 * pi())) AS gaussian_density
FROM bounds b
JOIN mixed m USING (subject_id, bin)
LEFT JOIN counted c USING (subject_id, bin)
ORDER BY b.subject_id, b.bin;

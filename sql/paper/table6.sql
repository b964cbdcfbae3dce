-- How Gaussian are transformation weights within 3 sigma, by method and rank (Table 6)?
-- param subject = NULL: only this subject; all when NULL
-- Means and sample standard deviations over the matrices that changed. paper_*: the paper's adapters for
-- commonsense reasoning of the same method and rank; their skewness is 0.00.
WITH paper(method, r, ratio_percent, kurtosis, kurtosis_std) AS (VALUES
    ('lora_dash', 4, 98.8e0, 3.60e0, 0.12e0), ('lora_dash', 8, 99.0, 3.35, 0.14), ('lora_dash', 16, 99.3, 3.16, 0.14),
    ('lora_dash', 32, 99.0, 3.33, 0.17), ('lora_dash', 64, 99.2, 3.16, 0.13),
    ('dora', 4, 98.7, 3.75, 0.22), ('dora', 8, 98.9, 3.48, 0.18), ('dora', 16, 99.1, 3.29, 0.15),
    ('dora', 32, 99.1, 3.28, 0.15), ('dora', 64, 99.4, 3.07, 0.12)
)
SELECT
    d.subject, d.kind, d.base, d.method, d.r,
    count(*) AS matrices,
    avg(d.ratio_3s) AS ratio,
    100 * avg(d.ratio_3s) AS ratio_percent,
    avg(d.skewness_3s) AS skewness,
    stddev_samp(d.skewness_3s) AS skewness_std,
    avg(d.kurtosis_3s) AS kurtosis,
    stddev_samp(d.kurtosis_3s) AS kurtosis_std,
    any_value(p.ratio_percent) AS paper_ratio_percent,
    any_value(p.kurtosis) AS paper_kurtosis,
    any_value(p.kurtosis_std) AS paper_kurtosis_std
FROM delta_stats d
LEFT JOIN paper p USING (method, r)
WHERE d.is_matrix AND NOT d.frozen AND ($subject IS NULL OR d.subject_id = $subject::INTEGER)
GROUP BY d.subject_id, d.subject, d.kind, d.base, d.method, d.r
ORDER BY d.method, d.r, d.subject_id;

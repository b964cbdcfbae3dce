-- How Gaussian is each module of each layer, with and without its values below 1e-3 (Table 5)?
-- param subject = NULL: only this subject; all when NULL
-- param paper = NULL: the paper's own numbers of subjects, as JSON; gaussmeter paper gives them
-- paper_*: what the paper says of the same module.
WITH paper AS (
    SELECT unnest(from_json($paper::JSON, '[{"subject_id": "INTEGER", "part": "VARCHAR", "layer": "INTEGER",
        "module": "VARCHAR", "kurtosis_3s": "DOUBLE", "kurtosis_3s_floor": "DOUBLE"}]')) AS p
)
SELECT
    t.subject, t.part, t.layer, t.module,
    avg(t.kurtosis_3s) AS kurtosis_3s,
    avg(f.kurtosis) AS kurtosis_3s_floor,
    avg(t.ratio_3s) AS ratio_3s,
    avg(t.small_ratio) AS small_ratio,
    count(*) AS matrices,
    any_value(p.kurtosis_3s) AS paper_kurtosis_3s,
    any_value(p.kurtosis_3s_floor) AS paper_kurtosis_3s_floor
FROM tensor_stats t
LEFT JOIN filtered f ON f.tensor_id = t.tensor_id AND f.sigmas = 3 AND f.floor = 1e-3
LEFT JOIN paper
    ON p.subject_id = t.subject_id AND p.part = t.part AND p.layer = t.layer AND p.module = t.module
WHERE t.is_matrix AND ($subject IS NULL OR t.subject_id = $subject::INTEGER)
GROUP BY t.subject_id, t.subject, t.part, t.layer, t.module
ORDER BY t.subject_id, t.layer IS NULL, t.part, t.layer, t.module;

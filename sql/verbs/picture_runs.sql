-- What did runs reach, step by step?
-- param subject_ids = NULL: only runs of these subjects, as a JSON list of numbers; all when NULL
SELECT
    CASE WHEN count(*) OVER (PARTITION BY r.name, m.name, m.step) > 1 THEN format('{} ({})', r.name, r.run_id)
         ELSE r.name END AS run,
    m.name AS metric, m.step, m.value
FROM runs r
JOIN metrics m USING (run_id)
WHERE isfinite(m.value)
    AND ($subject_ids IS NULL OR list_contains(from_json($subject_ids::JSON, '["INTEGER"]'), r.subject_id))
ORDER BY r.run_id, m.name, m.step;

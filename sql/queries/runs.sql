-- Which adaptation runs are there, and what did they reach?
-- param sweep = NULL: only the runs of this sweep; all when NULL
SELECT
    r.run_id, r.name AS run, r.status, r.method, r.r, r.task, r.seed,
    any_value(s.value) FILTER (s.metric = 'score') AS score,
    r.steps, r.seconds, r.parameters, r.head_parameters, r.subject_id, r.reason
FROM runs r
LEFT JOIN run_scores s USING (run_id)
WHERE $sweep IS NULL OR r.sweep = $sweep
GROUP BY ALL
ORDER BY r.run_id;

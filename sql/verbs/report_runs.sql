-- Which adaptation runs belong to one subject, and what did they reach?
-- param subject_id = 1: the subject
SELECT
    r.name AS run, r.method, r.task, r.seed, r.status, r.started_at,
    epoch(r.finished_at - r.started_at) AS seconds,
    string_agg(format('{} {:.4g}', x.metric, x.value), ', ' ORDER BY x.metric) AS reached
FROM runs r
LEFT JOIN run_scores x USING (run_id)
WHERE r.subject_id = $subject_id
GROUP BY r.run_id, r.name, r.method, r.task, r.seed, r.status, r.started_at, r.finished_at
ORDER BY r.run_id;

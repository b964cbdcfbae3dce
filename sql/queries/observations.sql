-- How did what runs learn change on the way, where they were observed?
-- param run = NULL: only this run; all when NULL
-- param sweep = NULL: only the runs of this sweep; all when NULL
SELECT
    r.name AS run, (s.spec ->> 'step')::UBIGINT AS step, s.subject_id, s.name AS subject,
    count(*) FILTER (t.is_matrix) AS matrices,
    avg(t.std) FILTER (t.is_matrix) AS std,
    avg(t.kurtosis_3s) FILTER (t.is_matrix) AS kurtosis_3s,
    max(greatest(abs(t.min), abs(t.max))) AS largest
FROM subjects s
JOIN runs r ON r.name = s.spec ->> 'run'
JOIN tensor_stats t ON t.subject_id = s.subject_id
WHERE s.kind = 'observation' AND ($run IS NULL OR r.name = $run) AND ($sweep IS NULL OR r.sweep = $sweep)
GROUP BY r.run_id, r.name, step, s.subject_id, s.name
ORDER BY r.run_id, step;

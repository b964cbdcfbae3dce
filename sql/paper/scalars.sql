-- How different are the scalars that are learnt with different noise (sec. 3.3)?
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- The mean of | |s_1| - |s_2| | over the pairs of seeds and the matrices; without a task, the mean over the tasks. The
-- paper finds 0.009. `magnitude` is the mean of |s|, `magnitude_std` its spread over the matrices. `task_label` is that of a
-- task which goes by another word in its sweep.
WITH learnt AS (
    SELECT
        r.sweep, r.model, r.label, r.method, r.r, r.task, coalesce(r.spec -> 'task' ->> 'label', r.task) AS task_label, r.seed,
        s.tensor, abs(s.value) AS magnitude
    FROM runs r
    JOIN scalars s USING (run_id)
    WHERE r.status = 'complete' AND ($sweep IS NULL OR r.sweep = $sweep)
),
pairs AS (
    SELECT
        a.sweep, a.model, a.label, a.r, a.task, a.task_label, avg(abs(a.magnitude - b.magnitude)) AS difference
    FROM learnt a
    JOIN learnt b USING (sweep, model, label, r, task, task_label, tensor)
    WHERE a.seed < b.seed
    GROUP BY ALL
),
by_task AS (
    SELECT
        sweep, model, label, method, r, task, task_label,
        count(DISTINCT seed) AS seeds, count(DISTINCT tensor) AS matrices,
        avg(magnitude) AS magnitude, stddev_samp(magnitude) AS magnitude_std
    FROM learnt
    GROUP BY ALL
)
SELECT
    sweep, model, label, r, task, nullif(task_label, task) AS task_label,
    max(seeds) AS seeds, max(matrices) AS matrices,
    avg(difference) AS difference, avg(magnitude) AS magnitude, avg(magnitude_std) AS magnitude_std,
    CASE WHEN any_value(method) = 'noise' THEN 9e-3 END AS paper_difference
FROM by_task
LEFT JOIN pairs USING (sweep, model, label, r, task, task_label)
GROUP BY GROUPING SETS ((sweep, model, label, r, task, task_label), (sweep, model, label, r))
ORDER BY sweep, model, label, r, task NULLS LAST, task_label;

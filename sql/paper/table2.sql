-- How good are adaptations of one model on GLUE, ours beside the paper's (Table 2)?
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- param metric = score: the metric of the runs that is the score; its last value counts
-- Means over seeds, in per cent; `std` is the mean over the tasks of the sample standard deviation over seeds. `average`
-- is over the tasks that a row has, `average_shared` over those that ours have. `parameters` are those beside the head. A
-- task that a sweep has twice has a row of its own for each `task_label` that is not its own name.
WITH reached AS (
    SELECT
        sweep, model, label, method, r, task, seed, value, parameters - head_parameters AS parameters,
        CASE WHEN task_label <> task AND min(task_label) OVER s <> max(task_label) OVER s THEN task_label END AS variant
    FROM run_scores
    WHERE metric = $metric AND status = 'complete' AND ($sweep IS NULL OR sweep = $sweep)
        AND task IN ('mnli', 'sst2', 'cola', 'qqp', 'qnli', 'rte', 'mrpc', 'stsb')
    WINDOW s AS (PARTITION BY sweep, model, task)
),
by_task AS (
    SELECT
        sweep, model, label, method, r, variant, task, avg(value) AS value, stddev_samp(value) AS std, count(*) AS runs,
        max(parameters) AS parameters
    FROM reached
    GROUP BY ALL
),
paper(method, parameters, mnli, sst2, cola, qqp, qnli, rte, mrpc, stsb) AS (VALUES
    ('head', 0, 65.37e0, 83.72e0, 52.93e0, 78.37e0, 72.43e0, 62.82e0, 75.74e0, 82.12e0),
    ('full', 184000000, 89.90, 95.63, 69.19, 92.40, 94.03, 83.75, 89.46, 91.60),
    ('svdiff', 55296, 68.32, 84.28, 55.21, 81.91, 75.86, 66.06, 76.47, 82.82),
    ('noise', 72, 69.49, 88.53, 61.34, 84.02, 83.58, 71.12, 83.58, 87.29),
    ('full_gaussian', 72, 35.45, 66.97, 7.11, 64.86, 57.04, 52.35, 69.36, 8.91)
),
everything AS (
    SELECT 'ours' AS source, * FROM by_task
    UNION ALL BY NAME
    SELECT 'paper' AS source, 'DeBERTaV3-base' AS model, method AS label, method, 0 AS r, parameters, 5 AS runs, task, value
    FROM (UNPIVOT paper ON mnli, sst2, cola, qqp, qnli, rte, mrpc, stsb INTO NAME task VALUE value)
    WHERE EXISTS (FROM by_task)
)
SELECT
    source, sweep, model, label, r, variant AS task_label,
    max(parameters)::BIGINT AS parameters,
    max(runs)::BIGINT AS runs,
    avg(value) FILTER (task = 'mnli') AS mnli,
    avg(value) FILTER (task = 'sst2') AS sst2,
    avg(value) FILTER (task = 'cola') AS cola,
    avg(value) FILTER (task = 'qqp') AS qqp,
    avg(value) FILTER (task = 'qnli') AS qnli,
    avg(value) FILTER (task = 'rte') AS rte,
    avg(value) FILTER (task = 'mrpc') AS mrpc,
    avg(value) FILTER (task = 'stsb') AS stsb,
    avg(value) AS average,
    avg(value) FILTER (task IN (SELECT task FROM by_task)) AS average_shared,
    avg(std) AS std
FROM everything
GROUP BY source, sweep, model, label, method, r, variant
ORDER BY
    source, sweep, model, array_position(['head', 'full', 'svdiff', 'noise', 'full_gaussian'], method), label, r,
    variant NULLS FIRST;

-- How good is LoRA with a scalar on the weights on commonsense tasks, beside plain LoRA (Table 3)?
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- Accuracies in per cent, means over seeds; `std` is that of the average over seeds. `gain` is over plain LoRA of the same
-- sweep, model and rank: of several that differ in their labels, the one that is called lora. A sweep that has the tasks
-- twice has rows of their own for each `task_label` that is not commonsense.
WITH reached AS (
    SELECT
        sweep, model, label, method, r, run_id, seed, metric, value,
        CASE WHEN task_label <> task AND min(task_label) OVER s <> max(task_label) OVER s THEN task_label END AS variant
    FROM run_scores
    WHERE task = 'commonsense' AND status = 'complete' AND ($sweep IS NULL OR sweep = $sweep)
    WINDOW s AS (PARTITION BY sweep, model)
),
by_run AS (
    SELECT
        sweep, model, label, method, r, variant, run_id,
        any_value(value) FILTER (metric = 'accuracy/boolq') AS boolq,
        any_value(value) FILTER (metric = 'accuracy/piqa') AS piqa,
        any_value(value) FILTER (metric = 'accuracy/social_i_qa') AS siqa,
        any_value(value) FILTER (metric = 'accuracy/hellaswag') AS hellaswag,
        any_value(value) FILTER (metric = 'accuracy/winogrande') AS winogrande,
        any_value(value) FILTER (metric = 'accuracy/ARC-Easy') AS arc_e,
        any_value(value) FILTER (metric = 'accuracy/ARC-Challenge') AS arc_c,
        any_value(value) FILTER (metric = 'accuracy/openbookqa') AS obqa,
        any_value(value) FILTER (metric = 'score') AS average
    FROM reached
    GROUP BY ALL
),
ours AS (
    SELECT
        'ours' AS source, sweep, model, label, method, r, variant, count(*) AS runs,
        avg(boolq) AS boolq, avg(piqa) AS piqa, avg(siqa) AS siqa, avg(hellaswag) AS hellaswag,
        avg(winogrande) AS winogrande, avg(arc_e) AS arc_e, avg(arc_c) AS arc_c, avg(obqa) AS obqa,
        avg(average) AS average, stddev_samp(average) AS std
    FROM by_run
    GROUP BY sweep, model, label, method, r, variant
),
paper(model, method, r, boolq, piqa, siqa, hellaswag, winogrande, arc_e, arc_c, obqa, average) AS (VALUES
    ('LLaMA-7B', 'lora', 16, 69.9e0, 77.8e0, 75.1e0, 72.1e0, 55.8e0, 77.1e0, 62.2e0, 78.0e0, 70.9e0),
    ('LLaMA-7B', 'lora_noise', 16, 68.1, 81.8, 77.2, 84.2, 71.3, 78.2, 62.3, 77.4, 75.1),
    ('LLaMA-7B', 'lora', 32, 68.9, 80.7, 77.4, 78.1, 78.8, 77.8, 61.3, 74.8, 74.7),
    ('LLaMA-7B', 'lora_noise', 32, 69.5, 82.3, 78.1, 80.5, 81.8, 81.5, 65.6, 79.0, 77.3),
    ('LLaMA2-7B', 'lora', 16, 71.2, 83.0, 68.0, 72.1, 80.9, 73.3, 59.0, 71.8, 72.4),
    ('LLaMA2-7B', 'lora_noise', 16, 72.0, 82.5, 79.3, 89.1, 83.0, 83.3, 70.2, 82.0, 80.2),
    ('LLaMA2-7B', 'lora', 32, 69.1, 80.4, 78.0, 80.6, 81.1, 80.0, 66.5, 79.2, 76.8),
    ('LLaMA2-7B', 'lora_noise', 32, 71.6, 83.1, 79.5, 85.8, 82.2, 81.2, 66.4, 78.8, 78.6),
    ('LLaMA3-8B', 'lora', 16, 72.3, 86.7, 79.3, 93.5, 84.8, 87.7, 75.7, 82.8, 82.8),
    ('LLaMA3-8B', 'lora_noise', 16, 72.6, 87.9, 79.9, 94.4, 85.8, 87.8, 76.6, 84.6, 83.7),
    ('LLaMA3-8B', 'lora', 32, 70.8, 85.2, 79.9, 91.7, 84.3, 84.2, 71.2, 79.0, 80.8),
    ('LLaMA3-8B', 'lora_noise', 32, 71.7, 86.2, 80.1, 93.3, 84.5, 87.0, 74.4, 84.4, 82.7)
),
everything AS (
    SELECT * FROM ours
    UNION ALL BY NAME
    SELECT 'paper' AS source, method AS label, * FROM paper WHERE EXISTS (FROM ours)
),
plain AS (
    SELECT
        source, sweep, model, r, variant,
        CASE WHEN count(*) = 1 THEN any_value(label) ELSE 'lora' END AS label,
        CASE WHEN count(*) = 1 THEN any_value(average) ELSE any_value(average) FILTER (label = 'lora') END AS average
    FROM everything
    WHERE method = 'lora'
    GROUP BY source, sweep, model, r, variant
)
SELECT
    e.source, e.sweep, e.model, e.label, e.r, e.variant AS task_label, e.runs,
    e.boolq, e.piqa, e.siqa, e.hellaswag, e.winogrande, e.arc_e, e.arc_c, e.obqa, e.average, e.std,
    e.average - p.average AS gain
FROM everything e
LEFT JOIN plain p
    ON p.source = e.source AND p.sweep IS NOT DISTINCT FROM e.sweep AND p.model = e.model AND p.r = e.r
    AND p.variant IS NOT DISTINCT FROM e.variant AND p.label <> e.label
ORDER BY e.source, e.sweep, e.model, e.r, e.variant NULLS FIRST, e.label;

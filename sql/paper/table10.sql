-- With which hyper-parameters are models adapted to GLUE: the paper's, our defaults, and what runs used (Table 10)?
-- param task = NULL: only this task; all when NULL
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- param paper = NULL: the paper's settings and our defaults, as JSON; gaussmeter paper gives them
-- `batch` is how many examples an update sees, of all workers; of a run that does not say how many it had, of one. Our
-- defaults are those of every method but `full`, whose learning rate is 5e-5 and which, like `head`, adapts no single
-- modules. Of runs: those that are complete; train_examples is NULL where all were used, epochs where steps were asked
-- for.
WITH paper AS (
    SELECT unnest(from_json(coalesce($paper, '[]')::JSON, '[{"number": "INTEGER", "source": "VARCHAR",
        "task": "VARCHAR", "label": "VARCHAR", "optimiser": "VARCHAR", "schedule": "VARCHAR",
        "warmup": "DOUBLE", "max_length": "INTEGER",
        "batch": "INTEGER", "learning_rate": "DOUBLE", "epochs": "DOUBLE", "modules": "VARCHAR"}]'), recursive := true)
),
used AS (
    SELECT
        'runs' AS source, sweep, task, label, spec -> 'training' AS t,
        array_to_string((spec -> 'method' -> 'modules')::VARCHAR[], ', ') AS modules
    FROM runs
    WHERE status = 'complete' AND ($sweep IS NULL OR sweep = $sweep)
),
everything AS (
    SELECT * FROM paper
    UNION ALL BY NAME
    SELECT
        p.number, u.source, u.sweep, u.task, u.label, p.optimiser, p.schedule, count(*) AS runs,
        CASE WHEN (t ->> 'warmup_steps')::INTEGER = 0 THEN (t ->> 'warmup')::DOUBLE END AS warmup,
        nullif((t ->> 'warmup_steps')::INTEGER, 0) AS warmup_steps,
        (t ->> 'max_length')::INTEGER AS max_length,
        (t ->> 'batch')::INTEGER * (t ->> 'accumulate')::INTEGER * coalesce((t ->> 'workers')::INTEGER, 1) AS batch,
        (t ->> 'learning_rate')::DOUBLE AS learning_rate,
        CASE WHEN (t ->> 'steps')::BIGINT = 0 THEN (t ->> 'epochs')::DOUBLE END AS epochs,
        nullif((t ->> 'steps')::BIGINT, 0) AS steps,
        nullif((t ->> 'train_examples')::BIGINT, 0) AS train_examples,
        u.modules
    FROM used u
    JOIN paper p ON p.task = u.task AND p.source = 'default'
    GROUP BY ALL
)
SELECT
    task, source, sweep, label, runs, optimiser, schedule, warmup, warmup_steps, max_length, batch, learning_rate,
    epochs, steps, train_examples, nullif(modules, '') AS modules
FROM everything
WHERE $task IS NULL OR task = $task
ORDER BY number, array_position(['paper', 'default', 'runs'], source), sweep, label, learning_rate, epochs, steps;

/* entries — the commands that there are; see entries.h. */
#include "tools/optctl/entries.h"

#include "tools/optctl/commands.h"

/* clang-format off */
static const struct option_entry of_all[] = {
    { "server", "ADDRESS", "which daemon: HOST:PORT, optimds://HOST:PORT or unix:/PATH; "
      "otherwise the environment's OPTIMD_SERVER or OPTIMD_URL, or 127.0.0.1:7070",
      COMPLETE_NOTHING, 's' },
    { "ca", "FILE", "the CA whose daemons are believed; means TLS", COMPLETE_FILE, 0 },
    { "cert", "FILE", "the certificate to show to the daemon", COMPLETE_FILE, 0 },
    { "key", "FILE", "its key", COMPLETE_FILE, 0 },
    { "token-file", "FILE", "log in with the token in this file; otherwise the environment's "
      "OPTIMD_TOKEN_FILE, or none", COMPLETE_FILE, 0 },
    { "timeout", "TIME", "how long to wait for it, such as 500ms (otherwise 5s)", COMPLETE_NOTHING, 0 },
    { "json", NULL, "answer with JSON; optctl(1) has its shapes", COMPLETE_NOTHING, 'j' },
    { "help", NULL, "help with the command", COMPLETE_NOTHING, 'h' },
    { "version", NULL, "the version of optctl", COMPLETE_NOTHING, 'V' },
    { 0 }
};

static const struct command commands[] = {
    { "list", "", 0, 0, COMPLETE_NOTHING, run_list,
      "all models with their steps, sizes, workers and specifications", "",
      { { "names", NULL, "only the names, one a line", COMPLETE_NOTHING, 0 } } },
    { "show", "MODEL", 1, 1, COMPLETE_MODEL, run_show,
      "one model: specification, policy, slots, changes, tensors, workers",
      "Of each worker: how many of its pushes were applied and with which staleness, sent\n"
      "again, refused, or dropped because their round had closed; how often and how long\n"
      "the others waited for it alone; whether it is connected, rests, or is away but\n"
      "waited for; its incarnation, which counts its lives, and how often its connection\n"
      "was replaced.\n",
      { { "yaml", NULL, "only the present specification, as a file for --spec-file",
          COMPLETE_NOTHING, 0 } } },
    { "create", "MODEL", 1, 1, COMPLETE_NOTHING, run_create,
      "create a model whose weights are zeros",
      "Needs --spec or --spec-file, and --tensor at least once. Succeeds if the model is\n"
      "there already with this definition.\n",
      { { "spec", "EXPRESSION", "specification, such as 'adam(lr=1e-3) + warmup(500)'",
          COMPLETE_RULE, 0 },
        { "spec-file", "FILE", "the same from a YAML file", COMPLETE_FILE, 0 },
        { "tensor", "NAME:SHAPE", "a tensor, such as fc.weight:10x784 or scale: (a "
          "scalar); once for each", COMPLETE_NOTHING, 0 },
        { "policy", "POLICY", "when pushes become an update: sync, async or bounded, then "
          "fields, such as sync,samples=1797 or bounded,staleness=4,damping; sync",
          COMPLETE_POLICY, 0 },
        { "async", NULL, "short for --policy async", COMPLETE_NOTHING, 0 },
        { "min-workers", "N", "workers that must have come together before the first "
          "round; 1", COMPLETE_NOTHING, 0 },
        { "durability", "WORD", "when a push is safe on the daemon's disk: always, interval "
          "or checkpoint; as the daemon's setting says", COMPLETE_NOTHING, 0 },
        { "checkpoint-steps", "N", "a checkpoint each time the model has had N updates "
          "more; 0: only by the daemon's clock", COMPLETE_NOTHING, 0 } } },
    { "export", "MODEL FILE", 2, 2, COMPLETE_MODEL_FILE, run_export,
      "write a model's weights to a .safetensors file",
      "All of it is of one step. A file of that name is replaced when the new one is whole.\n",
      { { "view", "VIEW", "which weights: train, where gradients are taken, or eval, what a "
          "finished model would use; train", COMPLETE_VIEW, 0 },
        { "dtype", "DTYPE", "of the weights in the file: fp32, bf16 or fp16; fp32",
          COMPLETE_DTYPE, 0 },
        { "slots", NULL, "with the state arrays of the optimizer, as TENSOR.SLOT, fp32",
          COMPLETE_NOTHING, 0 } } },
    { "import", "MODEL FILE", 2, 2, COMPLETE_NAME_FILE, run_import,
      "create a model of a .safetensors file's tensors and values",
      "Needs --spec or --spec-file. The model begins at step 0; slots in the file are passed\n"
      "over. Fails if there is a model of that name.\n",
      { { "spec", "EXPRESSION", "specification, such as 'adam(lr=1e-3) + warmup(500)'",
          COMPLETE_RULE, 0 },
        { "spec-file", "FILE", "the same from a YAML file", COMPLETE_FILE, 0 },
        { "sparse", "TENSOR", "a tensor whose gradients come by rows, such as an embedding; "
          "once for each", COMPLETE_NOTHING, 0 },
        { "policy", "POLICY", "when pushes become an update, as for create; sync",
          COMPLETE_POLICY, 0 },
        { "async", NULL, "short for --policy async", COMPLETE_NOTHING, 0 },
        { "min-workers", "N", "workers that must have come together before the first "
          "round; 1", COMPLETE_NOTHING, 0 },
        { "durability", "WORD", "when a push is safe on the daemon's disk: always, interval "
          "or checkpoint; as the daemon's setting says", COMPLETE_NOTHING, 0 },
        { "checkpoint-steps", "N", "a checkpoint each time the model has had N updates "
          "more; 0: only by the daemon's clock", COMPLETE_NOTHING, 0 } } },
    { "set", "MODEL NAME=VALUE ...", 2, -1, COMPLETE_MODEL, run_set,
      "change options of a model that runs, between two updates",
      "A schedule or another term of an expression may be given whole, such as\n"
      "'cosine(20000)', and options of some tensors as 'tensors(\"*.bias\", lr_scale=2)'.\n"
      "All that is given takes effect together or not at all. An option that the change\n"
      "leaves without effect goes back to its default. A change that would need other\n"
      "slots is refused.\n",
      { { "at-step", "N", "number of the first update with it; the next one",
          COMPLETE_NOTHING, 0 } } },
    { "checkpoint", "MODEL", 1, 1, COMPLETE_MODEL, run_checkpoint,
      "save a model to the daemon's data directory now",
      "Waits until it is on the disk, and says where. Training goes on meanwhile.\n"
      "The daemon does the same by itself; see --checkpoint-interval of optimd(8).\n",
      { { 0 } } },
    { "delete", "MODEL", 1, 1, COMPLETE_MODEL, run_delete,
      "delete a model and its state, if no worker is registered", "", { { 0 } } },
    { "verify", "DIR", 1, 1, COMPLETE_FILE, run_verify,
      "read all of a data directory, and say what is damaged; asks no daemon",
      "Every checkpoint with its values, and every record of the journal. No daemon may have\n"
      "the directory. Nothing is changed. Exits with 65 if something is damaged.\n",
      { { 0 } } },
    { "repair", "DIR", 1, 1, COMPLETE_FILE, run_repair,
      "set aside what is damaged in a data directory; asks no daemon",
      "Damaged checkpoints, and the journal from where it is damaged on, are moved to\n"
      "DIR/damaged-TIME, and nothing is deleted. What was applied after that is not applied\n"
      "any more: start optimd with --recover=previous then. First it says what it would do.\n",
      { { "yes", NULL, "do it", COMPLETE_NOTHING, 'y' } } },
    { "cert", "WHAT [NAME ...]", 1, -1, COMPLETE_CERT, run_cert,
      "certificates for a start: init, server, client, show, renew; asks no daemon",
      "cert init DIR        a CA of your own: DIR/ca.crt and DIR/ca.key\n"
      "cert server NAME ... a daemon's, for the names and IP addresses it is reached at\n"
      "cert client NAME     a client's\n"
      "cert show FILE       whose it is, and how long it lasts\n"
      "cert renew FILE      new dates for the same key and names\n"
      "Files are called after the first NAME and never overwritten, but by renew.\n",
      { { "dir", "DIR", "the folder of the CA; this one, and for renew that of FILE",
          COMPLETE_FILE, 0 },
        { "role", "ROLE", "what a client may do: worker, reader or admin",
          COMPLETE_NOTHING, 0 },
        { "days", "N", "how long it is valid; 365, a CA 3650", COMPLETE_NOTHING, 0 } } },
    { "token", "WHAT [NAME]", 1, 2, COMPLETE_TOKEN, run_token,
      "a file of logins by token: add, list, revoke; asks no daemon",
      "token add NAME       a new login; its token is printed, once\n"
      "token list           the logins there are\n"
      "token revoke NAME    one less\n"
      "The file is that of the daemon's setting tokens; a daemon that runs reads it again\n"
      "at optctl reload.\n",
      { { "file", "FILE", "the file; add makes it if it is missing", COMPLETE_FILE, 0 },
        { "role", "ROLE", "what it may do: reader, worker or admin", COMPLETE_NOTHING, 0 },
        { "models", "PATTERNS", "which models, such as 'mnist-*,shared'; all",
          COMPLETE_NOTHING, 0 },
        { "workers", "PATTERNS", "for which workers it may speak; all", COMPLETE_NOTHING, 0 },
        { "expires", "TIME", "how long it holds, such as 30d, or until when; for ever",
          COMPLETE_NOTHING, 0 } } },
    { "reload", "", 0, 0, COMPLETE_NOTHING, run_reload,
      "have the daemon read its configuration, logins and certificates again",
      "If anything in them is wrong, everything stays as it was. Names settings that are\n"
      "others now and cannot change while the daemon runs.\n", { { 0 } } },
    { "stats", "", 0, 0, COMPLETE_NOTHING, run_stats,
      "the daemon's counters, and what each of them counts", "", { { 0 } } },
    { "ping", "", 0, 0, COMPLETE_NOTHING, run_ping,
      "whether the daemon answers, and how soon; for health checks",
      "Succeeds if the engine, which computes the updates, has answered in time.\n",
      { { 0 } } },
    { "rules", "[NAME]", 0, 1, COMPLETE_RULE, run_rules,
      "the optimizers there are, or the options of one; asks no daemon", "",
      { { "profile", "NAME", "what stands for another library's optimizers",
          COMPLETE_PROFILE, 0 } } },
    { "spec", "[EXPRESSION]", 0, 1, COMPLETE_RULE, run_spec,
      "check a specification and print its forms; asks no daemon",
      "As a canonical expression, as YAML, and as the message of the protocol.\n",
      { { "file", "FILE", "read it from a YAML file", COMPLETE_FILE, 0 } } },
    { "help", "[COMMAND]", 0, 1, COMPLETE_COMMAND, run_help,
      "this list, or help with a command", "", { { 0 } } },
    { "completion", "SHELL", 1, -1, COMPLETE_SHELL, run_completion,
      "a script that completes command lines of optctl, for bash or zsh",
      "For this shell only: . <(optctl completion bash). `make install` puts both where\n"
      "the shells look.\n", { { 0 } } },
};
/* clang-format on */

void entries_register(void)
{
    commands_register(commands, sizeof(commands) / sizeof(commands[0]), of_all);
}

/* completion — what may come next on a command line; see commands.h.
 *
 * The scripts for the shells know nothing of commands: they ask `optctl completion
 * words
 * -- WORD ...` what the last word, which may be empty, can become. The answers are
 * lines, of a word, a tab and what it means; FILES asks the shell for names of files.
 * All of it comes from the table that command lines are read by.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/optim/rule.h"
#include "tools/optctl/commands.h"
#include "tools/optctl/policy.h"

enum { ASKED_MS = 500 }; /* nobody likes to wait at a prompt */

/* What the shell asks for. */
struct asked {
    const char *word;                 /* what is there of it so far */
    size_t kept;                      /* bytes from its start that stay as they are */
    const struct command *command;    /* NULL: it is not there yet */
    size_t position;                  /* among the command's arguments */
    const struct option_entry *value; /* the word is a value of that option; or NULL */
    bool over;                        /* options have ended, at a -- */
};

static void offer(const struct asked *asked, const char *word, const char *meaning)
{
    const char *begun = asked->word + asked->kept;
    if (strncmp(word, begun, strlen(begun)) == 0) {
        printf("%.*s%s\t%s\n", (int)asked->kept, asked->word, word, meaning);
    }
}

/* ---------------------------------------------------------------- what there is */

static void offer_commands(const struct asked *asked)
{
    size_t count;
    const struct command *commands = commands_table(&count);
    for (size_t i = 0; i < count; i++) {
        offer(asked, commands[i].name, commands[i].summary);
    }
}

static void offer_options(const struct asked *asked, const struct option_entry *options,
                          size_t most)
{
    for (size_t i = 0; i < most && options[i].name != NULL; i++) {
        char name[64];
        snprintf(name, sizeof(name), "--%s", options[i].name);
        offer(asked, name, options[i].help);
    }
}

static void offer_models(struct ctl *ctl, const struct asked *asked)
{
    struct optclient_options options = optclient_options_default();
    struct optclient_model_info *models;
    size_t count;
    options.worker = "";
    options.ca = ctl->ca;
    options.cert = ctl->cert;
    options.key = ctl->key;
    options.connect_timeout_ms = options.timeout_ms = ASKED_MS;
    if (optclient_connect(ctl->server, &options, &ctl->client) != OPTCLIENT_OK ||
        optclient_list(ctl->client, &models, &count) != OPTCLIENT_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        offer(asked, models[i].name, models[i].specification);
    }
    optclient_list_free(models);
}

static void offer_rules(const struct asked *asked)
{
    size_t rules, presets, rows;
    const struct opt_rule *const *rule = opt_rules(&rules);
    const struct opt_preset *preset = opt_presets(&presets);
    const struct opt_profile_row *row = opt_profile_rows(&rows);
    for (size_t i = 0; i < rules; i++) {
        offer(asked, rule[i]->name, rule[i]->source);
    }
    for (size_t i = 0; i < presets; i++) {
        offer(asked, preset[i].name, preset[i].expression);
    }
    for (size_t i = 0; i < rows; i++) {
        offer(asked, row[i].name,
              row[i].expression == NULL ? "not offered" : row[i].expression);
    }
}

static void offer_profiles(const struct asked *asked)
{
    size_t count;
    const struct opt_profile *profile = opt_profiles(&count);
    for (size_t i = 0; i < count; i++) {
        offer(asked, profile[i].name, profile[i].source);
    }
}

static void offer_policy_item(const char *item, void *context)
{
    offer(context, item, "");
}

static void offer_policy(struct asked *asked)
{
    const char *comma = strrchr(asked->word + asked->kept, ',');
    if (comma != NULL) {
        asked->kept = (size_t)(comma + 1 - asked->word);
    }
    policy_items(comma == NULL, offer_policy_item, asked);
}

static void offer_all(struct ctl *ctl, struct asked *asked, enum completion completion)
{
    switch (completion) {
    case COMPLETE_COMMAND:
        offer_commands(asked);
        break;
    case COMPLETE_FILE:
        puts("FILES\t");
        break;
    case COMPLETE_MODEL:
        offer_models(ctl, asked);
        break;
    case COMPLETE_RULE:
        offer_rules(asked);
        break;
    case COMPLETE_PROFILE:
        offer_profiles(asked);
        break;
    case COMPLETE_POLICY:
        offer_policy(asked);
        break;
    case COMPLETE_VIEW:
        offer(asked, "train", "where gradients are taken");
        offer(asked, "eval", "what a finished model would use");
        break;
    case COMPLETE_DTYPE:
        offer(asked, "fp32", "4 bytes");
        offer(asked, "bf16", "2 bytes, with the range of fp32");
        offer(asked, "fp16", "2 bytes, up to 65504");
        break;
    case COMPLETE_SHELL:
        offer(asked, "bash", "GNU Bourne-Again Shell");
        offer(asked, "zsh", "Z Shell");
        break;
    case COMPLETE_CERT:
        offer(asked, "init", "a CA of your own");
        offer(asked, "server", "a daemon's certificate");
        offer(asked, "client", "a client's");
        offer(asked, "show", "whose a certificate is, and how long it lasts");
        offer(asked, "renew", "new dates for the same key and names");
        break;
    case COMPLETE_TOKEN:
        offer(asked, "add", "a new login");
        offer(asked, "list", "the logins there are");
        offer(asked, "revoke", "one less");
        break;
    case COMPLETE_MODEL_FILE:
    case COMPLETE_NAME_FILE:
    case COMPLETE_NOTHING:
        break;
    }
}

/* ---------------------------------------------------------------- where the word is */

static const struct option_entry *find(const struct option_entry *options, size_t most,
                                       const char *word)
{
    size_t size = strcspn(word, "=");
    for (size_t i = 0; i < most && options[i].name != NULL; i++) {
        bool letter = size == 2 && word[1] != '-' && word[1] == options[i].letter;
        if (letter || (size > 2 && strncmp(options[i].name, word + 2, size - 2) == 0 &&
                       options[i].name[size - 2] == '\0')) {
            return &options[i];
        }
    }
    return NULL;
}

static const struct option_entry *find_option(const struct asked *asked,
                                              const char *word)
{
    const struct option_entry *entry = find(commands_options(), SIZE_MAX, word);
    size_t count;
    const struct command *commands = commands_table(&count);
    for (size_t i = 0; i < count && entry == NULL; i++) {
        if (asked->command == NULL || asked->command == &commands[i]) {
            entry = find(commands[i].options, OPTIONS_MAX, word);
        }
    }
    return entry;
}

/* One word before the one that is asked for. */
static void pass(struct ctl *ctl, struct asked *asked, const char *word)
{
    if (asked->value != NULL) {
        if (strcmp(asked->value->name, "server") == 0) {
            ctl->server = word;
        }
        asked->value = NULL;
    } else if (!asked->over && strcmp(word, "--") == 0) {
        asked->over = true;
    } else if (!asked->over && word[0] == '-') {
        const struct option_entry *entry = find_option(asked, word);
        const char *equals = strchr(word, '=');
        if (entry != NULL && entry->value != NULL) {
            asked->value = entry;
            if (equals != NULL) {
                pass(ctl, asked, equals + 1);
            }
        }
    } else if (asked->command == NULL) {
        asked->command = commands_find(word);
    } else {
        asked->position++;
    }
}

/* What stands there among the arguments. */
static enum completion at_place(const struct command *command, size_t place)
{
    enum completion first = command->completion;
    bool two = first == COMPLETE_MODEL_FILE || first == COMPLETE_NAME_FILE;
    if (two && place < 2) {
        return place == 1                     ? COMPLETE_FILE
               : first == COMPLETE_MODEL_FILE ? COMPLETE_MODEL
                                              : COMPLETE_NOTHING;
    }
    if (first == COMPLETE_CERT && place == 1) {
        return COMPLETE_FILE;
    }
    return place == 0 ? first : COMPLETE_NOTHING;
}

static void complete(struct ctl *ctl, struct asked *asked)
{
    const char *equals = strchr(asked->word, '=');
    bool option = asked->value == NULL && !asked->over && asked->word[0] == '-';
    if (option && equals != NULL) {
        asked->value = find_option(asked, asked->word);
        asked->kept = (size_t)(equals + 1 - asked->word);
    }
    if (asked->value != NULL) {
        offer_all(ctl, asked, asked->value->completion);
    } else if (option) {
        offer_options(asked, commands_options(), SIZE_MAX);
        if (asked->command != NULL) {
            offer_options(asked, asked->command->options, OPTIONS_MAX);
        }
    } else if (asked->command == NULL) {
        offer_commands(asked);
    } else {
        offer_all(ctl, asked, at_place(asked->command, asked->position));
    }
}

static int print_words(struct ctl *ctl)
{
    struct asked asked = { .word = "" };
    for (int i = 1; i + 1 < ctl->count; i++) {
        pass(ctl, &asked, ctl->arguments[i]);
    }
    if (ctl->count > 1) {
        asked.word = ctl->arguments[ctl->count - 1];
    }
    complete(ctl, &asked);
    return ctl_done(ctl);
}

/* ---------------------------------------------------------------- the scripts */

/* readline has cut the line at "=" and ":", too, and replaces only what follows. */
static const char bash[] =
    "# bash completion of optctl\n"
    "_optctl()\n"
    "{\n"
    "    local words word cut line\n"
    "    read -ra words <<<\"${COMP_LINE:0:COMP_POINT}\"\n"
    "    [[ ${COMP_LINE:COMP_POINT-1:1} == ' ' ]] && words+=('')\n"
    "    word=${words[-1]}\n"
    "    cut=${word%\"${word##*[=:]}\"}\n"
    "    COMPREPLY=()\n"
    "    while IFS=$'\\t' read -r line _; do\n"
    "        case $line in\n"
    "        FILES) compopt -o default ;;\n"
    "        *=) compopt -o nospace ;;&\n"
    "        *) COMPREPLY+=(\"${line#\"$cut\"}\") ;;\n"
    "        esac\n"
    "    done < <(\"${words[0]}\" completion words -- \"${words[@]:1}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _optctl optctl\n";

static const char zsh[] =
    "#compdef optctl\n"
    "_optctl()\n"
    "{\n"
    "    local line meaning\n"
    "    local -a whole open\n"
    "    while IFS=$'\\t' read -r line meaning; do\n"
    "        case $line in\n"
    "        FILES) _files && return ;;\n"
    "        *=) open+=(\"${line//:/\\\\:}:$meaning\") ;;\n"
    "        *) whole+=(\"${line//:/\\\\:}:$meaning\") ;;\n"
    "        esac\n"
    "    done < <(\"$words[1]\" completion words -- \"${(@)words[2,CURRENT]}\" "
    "2>/dev/null)\n"
    "    _describe optctl whole -- open -S ''\n"
    "}\n"
    "if [[ $funcstack[1] == _optctl ]]; then\n"
    "    _optctl \"$@\"\n"
    "else\n"
    "    compdef _optctl optctl\n"
    "fi\n";

int run_completion(struct ctl *ctl)
{
    const char *shell = ctl->arguments[0];
    if (strcmp(shell, "words") == 0) {
        return print_words(ctl);
    }
    if (ctl->count > 1 || (strcmp(shell, "bash") != 0 && strcmp(shell, "zsh") != 0)) {
        return ctl_wrong(ctl, "completion is for bash or for zsh");
    }
    fputs(strcmp(shell, "bash") == 0 ? bash : zsh, stdout);
    return ctl_done(ctl);
}

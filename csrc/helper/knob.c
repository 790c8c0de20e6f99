/* knob.c: a setting as pycomm/knobs.py finds it: in the environment, then in ~/.pycomm.conf, then in /etc/pycomm.conf. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "helper.h"

/* What stands between blanks; cuts off those behind it. */
static char *bare(char *text)
{
    while (isspace((unsigned char)*text)) text++;
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1])) text[--length] = 0;
    return text;
}

/* A line that is malformed is passed over: the process that chooses schedules reads the file too, and says so. */
static bool read_file(const char *path, const char *name, char *value, size_t capacity)
{
    FILE *file = fopen(path, "re");
    if (!file) return false;
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (!found && getline(&line, &room, file) >= 0) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        if (strcmp(bare(line), name) != 0) continue; /* of a comment, it begins with # */
        const char *text = bare(equals + 1);
        found = *text && strlen(text) < capacity;
        if (found) strcpy(value, text);
    }
    free(line);
    fclose(file);
    return found;
}

bool pcm_knob_text(const char *name, char *value, size_t capacity)
{
    const char *here = getenv(name), *home = getenv("HOME");
    if (here && *here && strlen(here) < capacity) {
        strcpy(value, here);
        return true;
    }
    char path[4096];
    if (home && *home && (size_t)snprintf(path, sizeof path, "%s/.pycomm.conf", home) < sizeof path &&
        read_file(path, name, value, capacity))
        return true;
    return read_file("/etc/pycomm.conf", name, value, capacity);
}

/* knob.c: prints settings as libpycomm-mpi.so finds them, for test_knob.py. */
#include <stdio.h>

#include "preload.h"

int main(int count, char **names)
{
    char value[64];
    for (int i = 1; i < count; i++) puts(knob_text(names[i], value, sizeof value) ? value : "");
    return 0;
}

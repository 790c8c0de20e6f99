/* dies.c: rank 1 dies; the others, which wait for each other and have no connection to it, are told: see test_launched_programs.py.
 *
 *     cc dies.c -pthread $(pycomm info --compile) -o dies && pycomm run -n 3 ./dies
 */
#include <pycomm.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    pcm_world *world;
    pcm_comm *all;
    double number;
    pcm_request *request;
    if (pcm_launched_world(&world, &all)) return 2;
    const int rank = pcm_comm_rank(all), other = 2 - rank;
    if (rank == 1) exit(3);
    int status = pcm_recv_start(all, &number, sizeof number, PCM_FLOAT64, other, 0, 30, &request);
    if (!status) status = pcm_wait(request, -1, NULL);
    printf("rank %d: status %d: %s\n", rank, status, pcm_last_error()->text);
    pcm_comm_free(all);
    pcm_world_destroy(world);
    return status != PCM_ERR_PEER_LOST || pcm_last_error()->rank != 1;
}

! check.f90: some collectives from Fortran, with the numbers of the ABI that MPICH and Intel MPI share. Says "ok" on rank 0.
program check
  implicit none
  integer, parameter :: world = 1140850688, real8 = 1275070495, summed = 1476395011
  integer :: bottom, in_place, status(5)
  common /mpipriv1/ bottom, in_place, status
  save /mpipriv1/
  integer :: rank, ranks, error, i, request
  double precision :: x(1000), y(1000), all(4000)
  call mpi_init(error)
  call mpi_comm_rank(world, rank, error)
  call mpi_comm_size(world, ranks, error)
  x = rank + 1
  y = 0
  call mpi_allreduce(x, y, 1000, real8, summed, world, error)
  if (any(y /= ranks * (ranks + 1) / 2)) stop 1
  call mpi_allreduce(in_place, x, 1000, real8, summed, world, error)
  if (any(x /= y)) stop 2
  x = rank
  call mpi_bcast(x, 1000, real8, ranks - 1, world, error)
  if (any(x /= ranks - 1)) stop 3
  x = rank
  call mpi_allgather(x, 1000, real8, all, 1000, real8, world, error)
  do i = 0, ranks - 1
    if (any(all(1000 * i + 1:1000 * i + 1000) /= i)) stop 4
  end do
  x = rank + 1
  call mpi_iallreduce(x, all, 1000, real8, summed, world, request, error)
  call mpi_wait(request, status, error)
  if (any(all(1:1000) /= y)) stop 5
  call mpi_barrier(world, error)
  if (rank == 0) print '(a)', 'ok'
  call mpi_finalize(error)
end program check

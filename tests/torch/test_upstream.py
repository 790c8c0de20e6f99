"""A part of the tests of process groups that torch ships, on pycomm; `make test-torch` runs all, on gloo too."""

from __future__ import annotations

import pytest
import upstream

# What of each kind is quick and differs most from the rest.
PART = """
DistributedDataParallelCPU_grad_is_view DistributedDataParallel_requires_grad periodic_model_averager
accumulate_gradients_no_sync_allreduce_with_then_hook all_gather all_gather_coalesced_with_empty all_gather_complex
all_gather_object_subgroup all_reduce_coalesced_full_group_product all_reduce_coalesced_group_max
all_reduce_coalesced_max_complex_unsupported all_reduce_complex_unsupported_ops all_reduce_group_min all_reduce_sum
all_reduce_sum_async all_reduce_sum_complex all_to_all all_to_all_complex all_to_all_group all_to_all_single_equal_split
all_to_all_single_unequal_split_complex all_to_all_single_unequal_split_full_group barrier_group
batch_isend_irecv_gloo batch_isend_irecv_gloo_tags broadcast broadcast_group ddp_broadcast_buffer_via_hook
ddp_buffer_hook_allreduce_return_future ddp_comm_hook_logging ddp_control_flow_different_across_ranks
ddp_grad_div_uneven_inputs ddp_hook_parity_powerSGD ddp_join_model_equivalence ddp_logging_data_cpu
ddp_model_diff_num_params_across_ranks ddp_profiling_torch_profiler ddp_uneven_input_exception
destroy_group detect_ddp_is_actually_static gather gather_checks get_backend get_future
get_rank_size_group irecv isend_torch_profiler monitored_barrier_gloo_rank_0_timeout monitored_barrier_gloo_subgroup
monitored_barrier_wait_all_ranks post_localSGD_optimizer_parity reduce_full_group_max
reduce_group_product reduce_sum_twice scatter scatter_complex scatter_object_list send_recv_any_source
send_recv_autograd_profiler send_recv_with_tag_torch_profiler sparse_all_reduce_sum static_graph_multi_forward
verify_model_across_rank_with_logger
"""


@pytest.mark.timeout(400)
def test_a_part_of_torchs_own_tests():
    names = [f"test_{name}" for name in PART.split()]
    ends = upstream.run_apart("pycomm", 3, names)
    assert {name: ends.get(name) for name in names} == {name: ["passed", ""] for name in names}

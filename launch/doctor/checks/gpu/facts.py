"""Reads facts about a GPU from NVML. A fact that NVML does not know is None."""

from typing import Any

import torch

from phalanx.system.nvml import library


def gpu_facts(index: int) -> dict[str, Any] | None:
    """Of CUDA device `index`: memory in bytes, clocks in MHz, temperature in degrees Celsius, None for what it has not.

    NVML numbers all GPUs and CUDA those that are visible, so that a UUID says which one is meant.
    """
    with library() as nvml:
        if nvml is None:
            return None
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
        except nvml.NVMLError:  # such as for a slice of a GPU
            return None

        def ask(function: str, *arguments: Any) -> Any:
            try:
                return getattr(nvml, function)(handle, *arguments)
            except (nvml.NVMLError, AttributeError):  # the card or this version of the library does not know it
                return None

        memory, ecc = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetEccMode")
        remapped = ask("nvmlDeviceGetRemappedRows")
        links = [ask("nvmlDeviceGetNvLinkState", link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return {
            "total_bytes": memory.total if memory else None,
            "used_bytes": memory.used if memory else None,
            "ecc": bool(ecc[0]) if ecc else None,
            "uncorrected": ask(
                "nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
            "remap_pending": bool(remapped[2]) if remapped else None,
            "remap_failed": bool(remapped[3]) if remapped else None,
            "clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            "clock_most_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
            "celsius": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            "slowdowns": [name for name, bit in _slowdowns(nvml).items() if reasons and reasons & bit],
            "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
            "pcie_lanes": ask("nvmlDeviceGetCurrPcieLinkWidth"),
            "pcie_lanes_most": ask("nvmlDeviceGetMaxPcieLinkWidth"),
            "nvlinks": sum(state == 1 for state in links),
            "nvlinks_there": sum(state is not None for state in links),
        }


def _slowdowns(nvml: Any) -> dict[str, int]:
    """Reasons for low clocks that are no ordinary power saving or power cap."""
    return {
        "hardware slowdown": nvml.nvmlClocksThrottleReasonHwSlowdown,
        "heat (hardware)": nvml.nvmlClocksThrottleReasonHwThermalSlowdown,
        "heat (driver)": nvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        "power brake": nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    }
